package main

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"

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
		path, fingerprint, err := nodekey.Generate(*dir)
		done := "wrote " + path
		if errors.Is(err, fs.ErrExist) {
			done = "kept " + path + ", which exists already; to make another key, remove it first"
			var key ed25519.PrivateKey
			if key, err = nodekey.Load(path); err == nil {
				fingerprint = nodekey.FingerprintOf(key.Public().(ed25519.PublicKey))
			}
		}
		if err != nil {
			return failure{err}
		}
		_, err = fmt.Fprintf(command.OutOrStdout(), "%s\n%s\n", done, fingerprint)
		return failed(err)
	}
	return command
}
