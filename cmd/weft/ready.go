package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"weft/internal/status"
)

func newReadyCommand(socket *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "ready",
		Short: "Check whether this node's weftd is ready, for probes",
		Args:  cobra.NoArgs,
	}
	exits(c, "pods can be added, and their packets are forwarded", "not so, and the error says why; or no weftd answers")
	pid := c.Flags().Int("pid", 0, "only if weftd has this process number, or had while it was ready, and waits to be ended (--linger); with 1 it is the weftd of this container")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if *pid != 0 {
			lingering, err := status.Server(filepath.Join(filepath.Dir(*socket), status.LingerName))
			if err == nil && lingering == *pid {
				_, err = fmt.Fprintln(c.OutOrStdout(), "waits to be ended, another weftd has the data path")
				return failed(err)
			}
			server, err := status.Server(*socket)
			if err == nil && server != *pid {
				err = errors.New("another weftd has the data path")
			}
			if err != nil {
				return failed(err)
			}
		}
		report, err := status.Fetch(c.Context(), *socket)
		if err == nil && !report.Ready {
			err = errors.New(report.Summary)
		}
		if err != nil {
			return failed(err)
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), "ready")
		return failed(err)
	}
	return c
}
