package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"weft/control"
	"weft/internal/config"
	"weft/internal/setup"
	"weft/internal/strict"
	"weft/peer"
)

// newNodeFlags are those of weftd's configuration that matter most for a new node.
var newNodeFlags = []string{"config", "node", "cluster-cidrs", "encapsulation", "key-file", "listen", "advertise", "control-file", "control-etcd-", "control-kubernetes-kubeconfig"}

func newInitCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "init",
		Short: "Make this host the first node of a new cluster",
		Long: "Make this host the first node of a new cluster: generate its key, choose its address and its pod\n" +
			"CIDR, and write weftd's configuration and the list of nodes. Files that exist already stay as they\n" +
			"are: the key is used, and any other is an error. Start weftd afterwards, and add further nodes\n" +
			"with weft join.\n\n" +
			"Each flag of weftd is accepted, and becomes a key of the configuration. Without --cluster-cidrs,\n" +
			"weft takes a range to which no route of this host leads.",
		Args: cobra.NoArgs,
	}
	request := addSetupFlags(c)
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		r, err := request()
		if err != nil {
			return err
		}
		node, err := setup.Init(c.Context(), r)
		return showNode(c, *output, node, err, func(out io.Writer) { printInitialized(out, node) })
	}
	return c
}

// addSetupFlags gives a command the flags of a new node, and returns how to read them.
func addSetupFlags(c *cobra.Command) (read func() (setup.Request, error)) {
	addConfigFlags(c, newNodeFlags...)
	cidrs := c.Flags().StringSlice("pod-cidrs", nil, "this node's `prefixes`, if a file has the list of nodes (default: the first that are free)")
	dryRun := c.Flags().Bool("dry-run", false, "print what would be written, and change nothing")
	return func() (setup.Request, error) {
		r := setup.Request{Flags: c.Flags(), ConfigPath: config.Path(c.Flags(), os.Environ()), DryRun: *dryRun}
		for _, text := range *cidrs {
			p, err := strict.ParsePrefix(text)
			if err != nil {
				return r, fmt.Errorf("--pod-cidrs: %w", err)
			}
			r.PodCIDRs = append(r.PodCIDRs, p)
		}
		return r, nil
	}
}

// showNode writes what became of a node, or returns why it is none.
func showNode(c *cobra.Command, format string, node *setup.Node, err error, next func(io.Writer)) error {
	switch {
	case errors.As(err, new(setup.Mistake)):
		return err
	case errors.Is(err, fs.ErrPermission):
		return failed(fmt.Errorf("%w; run it as root", err))
	case err != nil:
		return failed(err)
	}
	return failed(show(c.OutOrStdout(), format, node, func(out io.Writer) error {
		printNode(out, node)
		next(out)
		return nil
	}))
}

func printNode(out io.Writer, n *setup.Node) {
	fmt.Fprintf(out, "node           %s at %s\n", n.Name, n.Endpoint)
	fmt.Fprintf(out, "cluster CIDRs  %s\n", control.Join(n.ClusterCIDRs))
	if len(n.PodCIDRs) > 0 {
		fmt.Fprintf(out, "pod CIDRs      %s\n", control.Join(n.PodCIDRs))
	}
	if n.Key != (peer.Fingerprint{}) {
		fmt.Fprintf(out, "fingerprint    %s\n", n.Key)
	}
	for _, f := range n.Files {
		fmt.Fprintf(out, "%-14s %s\n", f.Change, f.Path)
	}
	for _, f := range n.Files {
		if f.Text != "" {
			fmt.Fprintf(out, "\n%s:\n%s", f.Path, f.Text)
		}
	}
}

func printInitialized(out io.Writer, n *setup.Node) {
	fmt.Fprintf(out, "\nStart weftd:  systemctl enable --now weftd\n")
	switch n.Source {
	case config.SourceFile:
		if !n.Sealed {
			fmt.Fprintf(out, "Add a node:   copy the files there, but for the key, and run weft join\n")
			return
		}
		fmt.Fprintf(out, "Add a node:   weft invite, which prints the command to run there\n")
	case config.SourceEtcd:
		fmt.Fprintf(out, "Add a node:   weft join --cluster-cidrs=%s, and the etcd flags as here\n", joinFlag(n.ClusterCIDRs))
	case config.SourceKubernetes:
		fmt.Fprintf(out, "Add a node:   weft join --cluster-cidrs=%s, and the kubeconfig of that node\n", joinFlag(n.ClusterCIDRs))
	}
}

// joinFlag returns prefixes as a flag's value.
func joinFlag(all []netip.Prefix) string { return strings.ReplaceAll(control.Join(all), ", ", ",") }
