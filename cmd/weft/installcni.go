package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"weft/cniplugin"
)

func newInstallCNICommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "install-cni",
		Short: "Install " + cniplugin.Type + " for container runtimes, as a DaemonSet does",
		Long: "Install " + cniplugin.Type + " in the folder where container runtimes look for plugins. A runtime that\n" +
			"calls it meanwhile finds the old one or the new one, and what runs goes on.",
		Args: cobra.NoArgs,
	}
	from := c.Flags().String("from", "/opt/cni/bin/"+cniplugin.Type, "the file to install")
	to := c.Flags().String("to", "", "the folder to install it in")
	_ = c.MarkFlagRequired("to") // there is such a flag
	c.RunE = func(c *cobra.Command, _ []string) error {
		path := filepath.Join(*to, cniplugin.Type)
		done, err := "kept", error(nil)
		if changed, readErr := differs(*from, path); readErr != nil {
			err = readErr
		} else if changed != nil {
			done, err = "installed", renameio.WriteFile(path, changed, 0o755, renameio.WithStaticPermissions(0o755))
		}
		if err != nil {
			return failed(fmt.Errorf("install %s: %w", cniplugin.Type, err))
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), done, path)
		return failed(err)
	}
	return c
}

// differs returns the content of a file if another has not the same.
func differs(from, to string) ([]byte, error) {
	want, err := os.ReadFile(from)
	if err != nil {
		return nil, err
	}
	got, err := os.ReadFile(to)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !bytes.Equal(got, want) {
		return want, nil
	}
	return nil, err
}
