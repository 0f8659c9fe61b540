package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"weft/internal/version"
)

func newManCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "man",
		Short: "Write the manual pages of all commands",
		Long:  "Write the manual pages of all commands (man8) into a folder, such as /usr/local/share/man/man8.",
		Args:  cobra.NoArgs,
	}
	dir := c.Flags().String("dir", "", "`folder` to write to; it is made if it does not exist")
	_ = c.MarkFlagRequired("dir") // it only fails for an unknown flag
	c.RunE = func(c *cobra.Command, _ []string) error {
		if err := os.MkdirAll(*dir, 0o755); err != nil {
			return failed(fmt.Errorf("make the folder of the manual pages: %w", err))
		}
		return failed(writeManual(c.Root(), *dir))
	}
	return c
}

// writeManual writes a page for each command, and for the help topic.
func writeManual(root *cobra.Command, dir string) error {
	root.DisableAutoGenTag = true
	header := doc.GenManHeader{Section: "8", Source: "weft " + version.Version, Manual: "weft"}
	if err := doc.GenManTree(root, &header, dir); err != nil {
		return fmt.Errorf("write the manual pages: %w", err)
	}
	topic, _, err := root.Find([]string{exitStatusTopic})
	if err != nil {
		return err
	}
	page, err := os.Create(filepath.Join(dir, "weft-"+exitStatusTopic+".8"))
	if err == nil {
		of := header // GenMan writes the command's name into it
		err = doc.GenMan(topic, &of, page)
		if closed := page.Close(); err == nil {
			err = closed
		}
	}
	if err != nil {
		return fmt.Errorf("write the manual page of the exit statuses: %w", err)
	}
	return nil
}
