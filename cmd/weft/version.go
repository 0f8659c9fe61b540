package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/version"
)

func newVersionCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Print weft's version, and what it was built from",
		Long: "Print weft's version, the commit that it was built from, and Go's version. That of a weftd\n" +
			"that runs is in weft status. With -o json, the versions of all modules that weft is linked\n" +
			"with are there too.",
		Args: cobra.NoArgs,
	}
	output := addOutput(c)
	modules := c.Flags().Bool("modules", false, "print the modules that weft is linked with, too")
	c.RunE = func(c *cobra.Command, _ []string) error {
		info := version.Read()
		return failed(show(c.OutOrStdout(), *output, info, func(out io.Writer) error { return printVersion(out, info, *modules) }))
	}
	return c
}

func printVersion(out io.Writer, info version.Info, modules bool) error {
	unknown := func(text string) string {
		if text == "" {
			return "unknown"
		}
		return text
	}
	var date string
	if !info.CommitDate.IsZero() {
		date = info.CommitDate.Format(time.RFC3339)
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{
		{"version", info.Version}, {"commit", unknown(info.Commit)}, {"commit date", unknown(date)}, {"Go", info.Go}, {"platform", info.Platform},
	} {
		fmt.Fprintf(table, "%s\t%s\n", row[0], row[1])
	}
	if modules {
		for _, m := range info.Modules {
			fmt.Fprintf(table, "module\t%s %s\n", m.Path, m.Version)
		}
	}
	return table.Flush()
}
