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
		Short: "Put a list of nodes into force that withdraws most of them",
		Long: "Put the list of nodes into force that waits because it withdraws several peers, and more than\n" +
			"half of all: that is more often a mistake than meant. `weft status` says whether one waits.",
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
