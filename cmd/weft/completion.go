package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"weft/internal/status"
)

// completePeers has the shell complete the names of peers, which it asks the running weftd for, in
// each command that takes PEER.
func completePeers(c *cobra.Command, socket *string) {
	if _, args, _ := strings.Cut(c.Use, " "); strings.Contains(args, "PEER") {
		c.ValidArgsFunction = func(c *cobra.Command, given []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			report, err := status.Fetch(c.Context(), *socket)
			if err != nil {
				return nil, cobra.ShellCompDirectiveError | cobra.ShellCompDirectiveNoFileComp
			}
			var names []cobra.Completion
			for _, p := range report.Peers {
				if !slices.Contains(given, p.Name) {
					names = append(names, cobra.CompletionWithDesc(oneLine(p.Name), p.Endpoint.String()))
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		}
	}
	for _, sub := range c.Commands() {
		completePeers(sub, socket)
	}
}
