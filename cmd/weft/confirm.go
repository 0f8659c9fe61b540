package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"weft/internal/status"
)

func newConfirmCommand(socket *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "confirm",
		Short: "Let go of peers that the control source lists no more",
		Long: "Let go of the peers that are kept though the control source lists them no more: several of them,\n" +
			"and more than half of all, is more often a mistake than meant. `weft status` says which are kept.",
		Args: cobra.NoArgs,
	}
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		done, err := status.ConfirmList(c.Context(), *socket)
		if err == nil {
			err = show(c.OutOrStdout(), *output, done, func(out io.Writer) error {
				_, err := fmt.Fprintf(out, "%d %s withdrawn, %d left\n", len(done.Withdrawn), plural(len(done.Withdrawn), "peer"), done.Peers)
				return err
			})
		}
		return failed(err)
	}
	return c
}
