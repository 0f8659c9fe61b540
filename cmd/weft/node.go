package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"weft/control"
	"weft/control/file"
	"weft/control/sources"
	"weft/internal/config"
	"weft/internal/setup"
	"weft/peer"
)

// sourceLimit is how long the control source may take to answer.
const sourceLimit = 15 * time.Second

// nodeList is what the control source knows, for programs.
type nodeList struct {
	Nodes []node `json:"nodes"`

	// Rejected names the nodes that the source does not list because of what they wrote.
	Rejected string `json:"rejected,omitempty"`
}

// node is one of a nodeList.
type node struct {
	Name      string           `json:"name"`
	Endpoint  netip.AddrPort   `json:"endpoint"`
	Addresses []netip.Addr     `json:"addresses,omitempty"`
	PodCIDRs  []netip.Prefix   `json:"podCIDRs"`
	Key       peer.Fingerprint `json:"key,omitzero"`
	Rejected  string           `json:"rejected,omitempty"` // why it can't be a peer
}

func newNodeCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "node",
		Short: "List the cluster's nodes, add one to a list, and remove one for good",
		Long: "List the nodes that the control source knows, add one, and remove one for good. weftd's configuration\n" +
			"selects the control source; its keys can be given as flags too, for example an operator's\n" +
			"certificate with --control-etcd-cert-file.",
	}
	addConfigFlags(c, "config", "control-etcd-", "control-kubernetes-kubeconfig", "control-file", "cluster-cidrs")
	c.AddCommand(newNodeListCommand(), newNodeAddCommand(), newNodeRemoveCommand())
	return c
}

func newNodeListCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "List the nodes that the control source knows",
		Args:  cobra.NoArgs,
	}
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		settings, source, err := openSource(c)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(c.Context(), sourceLimit)
		defer cancel()
		state, err := source.Load(ctx)
		if err != nil {
			return failed(err)
		}
		list := listNodes(state, settings)
		return failed(show(c.OutOrStdout(), *output, list, func(out io.Writer) error { return printNodes(out, list) }))
	}
	return c
}

func newNodeAddCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "add ENTRY",
		Short: "Add a node to this node's list of nodes (control.file)",
		Long: "Add a node to this node's list of nodes, as weft join prints it. What stands in the list stays as\n" +
			"it is, comments too. If weftd would reject the new list, the old one stays. Other nodes have lists\n" +
			"of their own: run the same command on each of them.",
		Example: `  weft node add '{name: node2, endpoint: "192.0.2.2:9338", podCIDRs: [10.244.1.0/24], key: 0dd4…}'`,
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, entries []string) error {
			settings, err := config.Load(c.Flags(), os.Environ())
			if err != nil {
				return err
			}
			if settings.Control.Source != config.SourceFile {
				return failed(fmt.Errorf("weft can't add a node to this control source: nodes register there by themselves; run `weft join` on the new node"))
			}
			n, err := file.ParseEntry(entries[0])
			if err != nil {
				return err
			}
			added, err := setup.AddNode(settings, n)
			if err != nil {
				return failed(err)
			}
			done := "is in"
			if added {
				done = "is added to"
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "node %s %s %s\n", n.Name, done, settings.Control.File)
			return failed(err)
		},
	}
}

func newNodeRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove a node for good, so that another one can have its pod CIDRs",
		Long: "Remove a node's entry and its claims, so that another one can have its pod CIDRs. Stop its\n" +
			"weftd first: while it runs, it registers again. In etcd this needs an operator's rights, which\n" +
			"no node has.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, names []string) error {
			settings, source, err := openSource(c)
			if err != nil {
				return err
			}
			remover, ok := source.(interface {
				Remove(context.Context, string) error
			})
			if !ok {
				remedy := "remove it from " + source.Origin()
				if settings.Control.Source == config.SourceKubernetes {
					remedy = "delete its Node object (kubectl delete node " + names[0] + ")"
				}
				return failed(fmt.Errorf("weft can't remove a node from this control source; %s", remedy))
			}
			ctx, cancel := context.WithTimeout(c.Context(), sourceLimit)
			defer cancel()
			if err := remover.Remove(ctx, names[0]); err != nil {
				return failed(err)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "node %s is removed\n", names[0])
			return failed(err)
		},
	}
}

// openSource opens the control source that weftd's configuration names.
func openSource(c *cobra.Command) (config.Config, sources.Source, error) {
	settings, err := config.Load(c.Flags(), os.Environ())
	if err != nil {
		return settings, nil, err
	}
	source, err := sources.Open(settings)
	return settings, source, err
}

// listNodes returns what a State says of each node, and why some can be no peers of others.
func listNodes(state control.State, settings config.Config) nodeList {
	rejected := control.Check(state, settings.ClusterCIDRs, settings.Encapsulation == config.EncapsulationSealed)
	list := nodeList{Nodes: make([]node, 0, len(state.Nodes))}
	if state.Refused != nil {
		list.Rejected = state.Refused.Error()
	}
	for i, n := range state.Nodes {
		listed := node{Name: n.Name, Endpoint: n.Endpoint, Addresses: n.Addresses, PodCIDRs: n.PodCIDRs, Key: n.Key}
		if err := rejected[i]; err != nil {
			listed.Rejected = err.Error()
		}
		list.Nodes = append(list.Nodes, listed)
	}
	return list
}

func printNodes(out io.Writer, list nodeList) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "NODE\tENDPOINT\tPOD CIDRS\tKEY\n")
	for _, n := range list.Nodes {
		key := "-"
		if n.Key != (peer.Fingerprint{}) {
			key = n.Key.String()[:16] + "…"
		}
		at := n.Endpoint.String()
		if len(n.Addresses) > 0 {
			at += ", " + control.Join(n.Addresses)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", oneLine(n.Name), at, control.Join(n.PodCIDRs), key)
		if n.Rejected != "" {
			fmt.Fprintf(w, "\tREJECTED: %s\n", inColumn(printable(n.Rejected)))
		}
	}
	if list.Rejected != "" {
		fmt.Fprintf(w, "\nREJECTED: %s\n", printable(list.Rejected))
	}
	return w.Flush()
}
