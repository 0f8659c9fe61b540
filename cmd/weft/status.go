package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"weft/control"
	"weft/internal/status"
	"weft/internal/units"
)

func newStatusCommand(socket *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the state of this node's weftd",
		Args:  cobra.NoArgs,
	}
	exits(c, "weftd answered, whether or not it is ready", "no weftd answers")
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		report, err := status.Fetch(c.Context(), *socket)
		if err != nil {
			return failed(err)
		}
		err = show(c.OutOrStdout(), *output, report, func(out io.Writer) error {
			return printStatus(out, report, time.Now())
		})
		return failed(err)
	}
	return c
}

// printStatus writes the report for people, as of now: what is wrong first.
func printStatus(out io.Writer, r status.Report, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "node\t%s, %s\n", r.Node, inColumn(printable(r.Summary)))
	for _, p := range r.Problems {
		fmt.Fprintf(w, "%s\t%s\n", p.Kind, inColumn(printable(p.Text)))
	}
	fmt.Fprintf(w, "version\t%s\n", r.Version)
	fmt.Fprintf(w, "pod CIDRs\t%s\n", control.Join(r.PodCIDRs))
	fmt.Fprintf(w, "datagrams\t%s on %s\n", r.Encapsulation, r.Listen)
	fmt.Fprintf(w, "TUN\t%s, MTU %d, driver %s, %d %s\n", r.TUN.Name, r.TUN.MTU, r.TUN.Driver, r.TUN.Lanes, plural(r.TUN.Lanes, "lane"))
	current := ""
	if r.State.Rejected != "" {
		current = ", not up to date"
	}
	fmt.Fprintf(w, "list of nodes\t%s, applied %s ago%s\n", r.State.Source, now.Sub(r.State.Applied).Round(time.Second), current)
	fmt.Fprintf(w, "host network\t%s\n", health(r.Host, "routes, rules and addresses are there"))
	fmt.Fprintf(w, "guard table\t%s\n", health(r.Guard, "it is there"))
	fmt.Fprintf(w, "conflist\t%s\n", health(r.Conflist, "it is written"))
	fmt.Fprintf(w, "leases\t%s\n", leaseLine(r.Leases))
	if states := peerStates(r.Peers, now); states != "" {
		fmt.Fprintf(w, "peers\t%s\n", states)
	}
	fmt.Fprintf(w, "outbound\t%d %s, %s\n", r.Outbound.Packets, plural(r.Outbound.Packets, "packet"), units.Bytes(r.Outbound.Bytes))
	fmt.Fprintf(w, "inbound\t%d %s, %s\n", r.Inbound.Packets, plural(r.Inbound.Packets, "packet"), units.Bytes(r.Inbound.Bytes))
	printCounts(w, "dropped", r.Drops, r.RecentDrops)
	printCounts(w, "dropped by guard", r.GuardDrops, r.RecentGuardDrops)
	fmt.Fprintln(w)
	printTopPeers(w, r.Peers, now)
	return w.Flush()
}

// health is that of a part.
func health(p status.Part, well string) string {
	switch p.Error {
	case "":
		return well
	case status.NotYet:
		return p.Error
	}
	return "NOT AS IT MUST BE: see above"
}

// leaseLine says how many addresses pods have, and how many there are.
func leaseLine(l status.Leases) string {
	parts := []string{fmt.Sprintf("%d held, %d cooling down", l.Held, l.CoolingDown)}
	for _, p := range l.Pools {
		if p.Size < 1<<32 {
			parts = append(parts, fmt.Sprintf("%d of %d %s addresses leased (%d %%)", p.Leased, p.Size, p.Family, p.Leased*100/max(1, p.Size)))
		}
	}
	return strings.Join(parts, "; ")
}

// printCounts writes drop counters, and how many were counted in the last minute.
func printCounts(w io.Writer, label string, total, recent map[string]uint64) {
	for _, name := range slices.Sorted(maps.Keys(total)) {
		if total[name] == 0 {
			continue
		}
		lately := ""
		if n := recent[name]; n > 0 {
			lately = fmt.Sprintf(", %d in the last minute", n)
		}
		fmt.Fprintf(w, "%s\t%d %s%s\n", label, total[name], name, lately)
		label = ""
	}
}

// inColumn keeps the lines of a text in the second column.
func inColumn(text string) string { return strings.ReplaceAll(text, "\n", "\n\t") }

func plural[N int | uint64](n N, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}
