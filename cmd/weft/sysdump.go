package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"weft/internal/sysdump"
)

func newSysdumpCommand(socket *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "sysdump",
		Short: "Collect what a maintainer needs into one archive, without secrets",
		Long: "Collect what a maintainer needs to know of this node into one archive (.tar.gz) that only its owner\n" +
			"can read: what weftd reports, what weft doctor finds, the configuration, leases, routes, packet\n" +
			"filters, counters, and the log of the unit. Keys, tokens and passwords are removed; addresses and\n" +
			"names of pods and nodes are not. What can't be collected is listed in the archive's manifest.json.",
		Args: cobra.NoArgs,
	}
	exits(c, "the archive is written; its manifest.json lists what is missing", "the archive could not be written")
	addConfigFlags(c, "config", "run-dir", "state-dir", "cni-conf-dir")
	path := c.Flags().String("output", "", "`file` to write; default: weft-sysdump-NODE-TIME.tar.gz in this folder")
	c.RunE = func(c *cobra.Command, _ []string) error {
		in := examined(c, *socket)
		if *path == "" {
			*path = sysdump.FileName(in.Config.Node)
		}
		out, err := os.OpenFile(*path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return failed(fmt.Errorf("%s exists already; name another file with --output", *path))
		}
		if err != nil {
			return failed(fmt.Errorf("make the archive: %w", err))
		}
		stderr, part := c.ErrOrStderr(), ""
		manifest, err := sysdump.Write(c.Context(), out, in, func(name string, number, of int) {
			if now, _, _ := strings.Cut(name, "/"); now != part {
				part = now
				fmt.Fprintf(stderr, "collecting %s (file %d of %d)\n", strings.TrimSuffix(part, ".json"), number, of)
			}
		})
		if err := errors.Join(err, out.Close()); err != nil {
			return failed(errors.Join(err, os.Remove(*path)))
		}
		missing := ""
		if n := manifest.Failed(); n > 0 {
			missing = fmt.Sprintf("; %d of them missing or not complete, perhaps because this node has no such thing: manifest.json says why", n)
		}
		fmt.Fprintf(stderr, "%d files%s\n", len(manifest.Files), missing)
		_, err = fmt.Fprintln(c.OutOrStdout(), *path)
		return failed(err)
	}
	return c
}
