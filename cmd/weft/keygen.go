package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"weft/internal/nodekey"
)

func newKeygenCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "keygen",
		Short: "Generate this node's key, and print its fingerprint",
		Long: "Generate this node's key, which only its owner can read. The last line of the output is the\n" +
			"fingerprint to write under key in the list of nodes. An existing key is kept, and its\n" +
			"fingerprint printed.",
		Args: cobra.NoArgs,
	}
	dir := command.Flags().String("out", "/etc/weft", "folder to write "+nodekey.FileName+" to")
	command.RunE = func(command *cobra.Command, _ []string) error {
		path := filepath.Join(*dir, nodekey.FileName)
		fingerprint, made, err := nodekey.Ensure(path)
		done := "wrote " + path
		if !made {
			done = "kept " + path + ", which exists already; to make another key, remove it first"
		}
		if err != nil {
			return failure{err}
		}
		_, err = fmt.Fprintf(command.OutOrStdout(), "%s\n%s\n", done, fingerprint)
		return failed(err)
	}
	return command
}
