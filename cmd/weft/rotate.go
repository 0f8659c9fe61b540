package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/status"
)

func newRotateCommand(socket *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "rotate-key [PEER...]",
		Short: "Agree on new data keys with other nodes now",
		Long: "Agree on new data keys with the named peers, or with all that have keys, and return when\n" +
			"they are in use. No packet is lost. weftd does this by itself every 5 to 8 minutes while packets\n" +
			"pass. The node's own key stays.",
	}
	exits(c, "the peers have new keys", "a peer has none after 10 s")
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, names []string) error {
		rotation, err := status.RotateKeys(c.Context(), *socket, names)
		if err != nil {
			return failed(err)
		}
		err = show(c.OutOrStdout(), *output, rotation, func(out io.Writer) error { return printRotation(out, rotation) })
		if err != nil {
			return failed(err)
		}
		if rotation.Error != "" {
			return failure{errors.New(rotation.Error)}
		}
		return nil
	}
	return c
}

func printRotation(out io.Writer, r status.Rotation) (err error) {
	switch n := len(r.Peers); {
	case n > 0:
		took := time.Duration(r.Took) * time.Microsecond
		_, err = fmt.Fprintf(out, "new keys with %d %s in %d ms\n", n, plural(n, "peer"), took.Milliseconds())
	case r.Error == "":
		_, err = fmt.Fprintln(out, "no peer has keys yet; the first packet to a peer starts a handshake")
	}
	return err
}
