package main

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"weft/internal/explain"
	"weft/internal/status"
)

func newExplainCommand(socket *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "explain [SOURCE] DESTINATION",
		Short: "Say what becomes of a packet, step by step",
		Long: "Say what becomes of a packet from one address to another on this node, step by step in the order in\n" +
			"which the packet meets them: the guard table, routing rules and routes, other programs' filters, the\n" +
			"forwarding table, the peer, its keys, the path's MTU and the datagram. Nothing is sent. The verdict\n" +
			"comes first, with the remedy if the packet is dropped. Without SOURCE, the packet is one of a pod of\n" +
			"this node, or of the node itself if it has no pods. The packet is the first one of a connection. Where\n" +
			"packets are sealed, the peer is asked what becomes of it there.",
		Args: cobra.RangeArgs(1, 2),
	}
	protocol := c.Flags().StringP("protocol", "p", "tcp", "`protocol` of the packet: tcp or udp")
	port := c.Flags().Uint16("port", 80, "destination `port`")
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, args []string) error {
		q := explain.Query{Protocol: *protocol, Port: *port}
		if q.Protocol != "tcp" && q.Protocol != "udp" {
			return fmt.Errorf("unknown protocol %q; there are tcp and udp", q.Protocol)
		}
		for i, to := range []*netip.Addr{&q.Destination, &q.Source}[:len(args)] {
			text := args[len(args)-1-i]
			addr, err := netip.ParseAddr(text)
			if err != nil || addr.Zone() != "" {
				return fmt.Errorf("%q is not an IP address; write one like 10.244.2.7", text)
			}
			*to = addr.Unmap()
		}
		answer, err := status.AskExplain(c.Context(), *socket, q)
		if err != nil {
			return failed(err)
		}
		return failed(show(c.OutOrStdout(), *output, answer, func(out io.Writer) error { return printExplanation(out, answer) }))
	}
	return c
}

// printExplanation writes the verdict, and then a line for each step.
func printExplanation(out io.Writer, e status.Explanation) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	example := ""
	if e.Example {
		example = " (an example; name another source before the destination)"
	}
	fmt.Fprintf(w, "packet\t%s → %s, %s port %d%s\n", e.Source, e.Destination, strings.ToUpper(e.Protocol), e.Port, example)
	fmt.Fprintf(w, "verdict\t%s\n", oneLine(withRemedy(e.Overall.Text, e.Overall.Remedy)))
	side := func(where string, a explain.Answer) {
		fmt.Fprintf(w, "\n%s\n", where)
		for _, s := range a.Steps {
			fmt.Fprintf(w, "  %s\t%s\n", oneLine(s.Part), oneLine(s.Text))
		}
		fmt.Fprintf(w, "  result\t%s\n", oneLine(a.Verdict.Text))
	}
	here := func() { side("on "+e.Node, e.Answer) }
	there := func() {
		switch {
		case e.PeerSide != nil:
			side("on "+e.Peer+", as it says", *e.PeerSide)
		case e.PeerError != "":
			fmt.Fprintf(w, "\non %s\n  not known\t%s\n", e.Peer, oneLine(e.PeerError))
		}
	}
	if e.Inbound {
		there()
		here()
	} else {
		here()
		there()
	}
	return w.Flush()
}
