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

// printStatus writes the report for people, as of now.
func printStatus(out io.Writer, r status.Report, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	ready := "ready"
	if !r.Ready {
		ready = "NOT READY: " + inColumn(r.NotReady)
	}
	fmt.Fprintf(w, "node\t%s, %s\n", r.Node, ready)
	for _, warning := range r.Warnings {
		fmt.Fprintf(w, "WARNING\t%s\n", inColumn(printable(warning.Text)))
	}
	fmt.Fprintf(w, "version\t%s\n", r.Version)
	fmt.Fprintf(w, "pod CIDRs\t%s\n", control.Join(r.PodCIDRs))
	fmt.Fprintf(w, "datagrams\t%s on %s\n", r.Encapsulation, r.Listen)
	fmt.Fprintf(w, "TUN\t%s, MTU %d, driver %s, %d %s\n", r.TUN.Name, r.TUN.MTU, r.TUN.Driver, r.TUN.Lanes, plural(r.TUN.Lanes, "lane"))
	fmt.Fprintf(w, "list of nodes\t%s, applied %s ago\n", r.State.Source, now.Sub(r.State.Applied).Round(time.Second))
	if r.State.Rejected != "" {
		fmt.Fprintf(w, "\tNOT UP TO DATE: %s\n", inColumn(r.State.Rejected))
	}
	if r.State.RejectedNodes != "" {
		fmt.Fprintf(w, "\tREJECTED: %s\n", inColumn(printable(r.State.RejectedNodes)))
	}
	fmt.Fprintf(w, "leases\t%d held, %d cooling down\n", r.Leases.Held, r.Leases.CoolingDown)
	for _, trouble := range r.Leases.Unreconciled {
		fmt.Fprintf(w, "\tNOT RECONCILED: %s\n", inColumn(printable(trouble)))
	}
	fmt.Fprintf(w, "outbound\t%d %s, %s\n", r.Outbound.Packets, plural(r.Outbound.Packets, "packet"), size(r.Outbound.Bytes))
	fmt.Fprintf(w, "inbound\t%d %s, %s\n", r.Inbound.Packets, plural(r.Inbound.Packets, "packet"), size(r.Inbound.Bytes))
	for i, reason := range slices.Sorted(maps.Keys(r.Drops)) {
		label := ""
		if i == 0 {
			label = "dropped"
		}
		fmt.Fprintf(w, "%s\t%d %s\n", label, r.Drops[reason], reason)
	}
	fmt.Fprintf(w, "\nPEER\tENDPOINT\tPREFIXES\n")
	for _, p := range r.Peers {
		fmt.Fprintf(w, "%s\t%s\t%s\n", p.Name, p.Endpoint, control.Join(p.Prefixes))
	}
	return w.Flush()
}

// inColumn keeps the lines of a text in the second column.
func inColumn(text string) string { return strings.ReplaceAll(text, "\n", "\n\t") }

func plural[N int | uint64](n N, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

// size formats a number of bytes with a unit of IEC 80000-13.
func size(n uint64) string {
	const units = "KMGTPE"
	const next = 1023.95 // what would be rounded to 1024.0
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for ; value >= next && unit < len(units)-1; unit++ {
		value /= 1024
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}
