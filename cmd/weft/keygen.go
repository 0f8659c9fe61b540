package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"weft/internal/nodekey"
)

func newKeygenCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "keygen",
		Short: "Make this node's key, and print the fingerprint that the list of nodes needs",
		Long: "Make this node's key, which only its owner can read, and print on the last line the\n" +
			"fingerprint to write under key in the list of nodes. A key that is there already stays.",
		Args: cobra.NoArgs,
	}
	dir := command.Flags().String("out", "/etc/weft", "folder to write "+nodekey.FileName+" to")
	command.RunE = func(command *cobra.Command, _ []string) error {
		path, fingerprint, err := nodekey.Generate(*dir)
		if errors.Is(err, fs.ErrExist) {
			return failure{fmt.Errorf("%s is there already; the list of nodes knows this node by it. To make another, remove it first", path)}
		}
		if err != nil {
			return failure{err}
		}
		fmt.Fprintf(command.OutOrStdout(), "wrote %s\n%s\n", path, fingerprint)
		return nil
	}
	return command
}
