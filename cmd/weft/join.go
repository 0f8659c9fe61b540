package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"weft/internal/config"
	"weft/internal/invite"
	"weft/internal/setup"
)

func newJoinCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "join [TOKEN]",
		Short: "Make this host a further node of a cluster",
		Long: "Make this host a further node of a cluster. Start weftd afterwards. There are three ways:\n\n" +
			"    weft join TOKEN\n" +
			"        with the token that weft invite prints on a node of the cluster: generates this node's\n" +
			"        key, gets the cluster CIDRs and the list of nodes from there, with this node in it, and\n" +
			"        writes them. With - in place of the token, weft reads it from its input.\n" +
			"    weft join --control-etcd-endpoints=URL,... --cluster-cidrs=PREFIX,...\n" +
			"        with etcd, and likewise with Kubernetes: generates the node's key and writes weftd's\n" +
			"        configuration. weftd registers the node when it starts.\n" +
			"    weft join\n" +
			"        where weftd's configuration and the list of nodes were copied from another node: generates\n" +
			"        the node's key, chooses its address and its pod CIDR, adds it to the list, and prints the\n" +
			"        command that adds it to the lists of the other nodes.\n\n" +
			"Each flag of weftd is accepted. With a token or etcd it becomes a key of the configuration.",
		Args: cobra.MaximumNArgs(1),
	}
	request := addSetupFlags(c)
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, tokens []string) error {
		r, err := request()
		if err != nil {
			return err
		}
		if len(tokens) > 0 {
			return joinByToken(c, r, tokens[0], *output)
		}
		node, err := join(c, r)
		return showNode(c, *output, node, err, func(out io.Writer) { printJoined(out, node) })
	}
	return c
}

func joinByToken(c *cobra.Command, r setup.Request, text, format string) error {
	if text == "-" {
		input, err := io.ReadAll(io.LimitReader(c.InOrStdin(), 1<<10))
		if err != nil {
			return failed(fmt.Errorf("read the token: %w", err))
		}
		text = strings.TrimSpace(string(input))
	}
	token, err := invite.ParseToken(text)
	if err != nil {
		return err
	}
	joined, err := setup.JoinToken(c.Context(), r, token)
	if err != nil {
		return showNode(c, format, nil, err, nil)
	}
	return failed(show(c.OutOrStdout(), format, joined, func(out io.Writer) error {
		fmt.Fprintf(out, "joined         by %s, with the fingerprint %s\n", joined.Host, joined.HostKey)
		printNode(out, &joined.Node)
		fmt.Fprintf(out, "\nStart weftd:  systemctl enable --now weftd\n")
		return nil
	}))
}

func join(c *cobra.Command, r setup.Request) (*setup.Node, error) {
	if setup.Registers(r.Flags) {
		return setup.JoinRegistry(c.Context(), r)
	}
	if _, err := os.Lstat(r.ConfigPath); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no %s; give the token that `weft invite` prints on a node of the cluster, or etcd's URLs with --control-etcd-endpoints, or copy it and the list of nodes from a node; `weft init` begins a new cluster", r.ConfigPath)
	}
	settings, err := setup.LoadConfig(r)
	if err != nil {
		return nil, err
	}
	if settings.Control.Source != config.SourceFile {
		return nil, fmt.Errorf("%s has the nodes register in %s: this host joins when weftd starts", r.ConfigPath, settings.Control.Source)
	}
	return setup.JoinList(settings, r)
}

func printJoined(out io.Writer, n *setup.Node) {
	fmt.Fprintf(out, "\nStart weftd:  systemctl enable --now weftd\n")
	if n.Entry != "" && len(n.Others) > 0 {
		fmt.Fprintf(out, "Run on %s:  weft node add '%s'\n", strings.Join(n.Others, ", "), n.Entry)
	}
}
