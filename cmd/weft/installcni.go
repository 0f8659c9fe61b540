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
			"calls it meanwhile finds the old one or the new one, and what runs goes on. With --missing-from,\n" +
			"plugins that the folder lacks are installed too; those that are there stay.",
		Args: cobra.NoArgs,
	}
	from := c.Flags().String("from", "", "the file to install (default: "+cniplugin.Type+" beside this program)")
	to := c.Flags().String("to", "/opt/cni/bin", "the folder to install it in")
	missing := c.Flags().String("missing-from", "", "a folder with plugins that the other one may lack, such as loopback")
	c.RunE = func(c *cobra.Command, _ []string) error {
		path := filepath.Join(*to, cniplugin.Type)
		if err := installCNI(*from, path); err != nil {
			return failed(fmt.Errorf("install %s: %w", cniplugin.Type, err))
		}
		fmt.Fprintln(c.OutOrStdout(), "installed", path)
		if *missing == "" {
			return nil
		}
		added, err := installMissing(*missing, *to)
		for _, path := range added {
			fmt.Fprintln(c.OutOrStdout(), "installed", path)
		}
		return failed(err)
	}
	return c
}

// installMissing installs the plugins of a folder that another one lacks.
func installMissing(from, to string) (added []string, err error) {
	plugins, err := os.ReadDir(from)
	if err != nil {
		return nil, fmt.Errorf("find the plugins: %w", err)
	}
	for _, p := range plugins {
		path := filepath.Join(to, p.Name())
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := installCNI(filepath.Join(from, p.Name()), path); err != nil {
			return added, fmt.Errorf("install %s: %w", p.Name(), err)
		}
		added = append(added, path)
	}
	return added, nil
}

// installCNI leaves a file as it is that has the right content.
func installCNI(from, to string) error {
	if from == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		from = filepath.Join(filepath.Dir(self), cniplugin.Type)
	}
	want, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	got, err := os.ReadFile(to)
	switch {
	case err == nil && bytes.Equal(got, want):
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return renameio.WriteFile(to, want, 0o755, renameio.WithStaticPermissions(0o755))
}
