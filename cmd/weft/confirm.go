package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"weft/internal/status"
)

func newConfirmCommand(socket *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "confirm",
		Short: "Accept the removal of many peers, and changed keys",
		Long: "Accept that the control source removes several peers, and more than half of all, which is more often\n" +
			"a mistake than intended, and that it lists nodes with other keys than before. `weft status` shows both.",
		Args: cobra.NoArgs,
	}
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		done, err := status.ConfirmList(c.Context(), *socket)
		if err == nil {
			err = show(c.OutOrStdout(), *output, done, func(out io.Writer) error {
				if len(done.Keys) > 0 {
					fmt.Fprintf(out, "%d changed %s accepted: %s\n", len(done.Keys), plural(len(done.Keys), "key"), strings.Join(done.Keys, ", "))
				}
				_, err := fmt.Fprintf(out, "%d %s removed, %d left\n", len(done.Withdrawn), plural(len(done.Withdrawn), "peer"), done.Peers)
				return err
			})
		}
		return failed(err)
	}
	return c
}
