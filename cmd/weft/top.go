package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"weft/internal/status"
	"weft/internal/units"
)

func newTopCommand(socket *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "top",
		Short: "Show what passes now: by peer, lane and drop reason",
		Long: "Show what passes now, in packets and bytes of pods a second: of this node, each lane, and the busiest\n" +
			"peers, and which packets are dropped. On a terminal the display is refreshed; otherwise one snapshot\n" +
			"follows the other.",
		Args: cobra.NoArgs,
	}
	interval := c.Flags().Duration("interval", time.Second, "time between snapshots, at least 100ms")
	count := c.Flags().IntP("count", "n", 0, "end after so many snapshots; 0: never")
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		const shortest = 100 * time.Millisecond
		switch {
		case *interval < shortest:
			return fmt.Errorf("--interval %v is too short; write %v or more", *interval, shortest)
		case *count < 0:
			return fmt.Errorf("--count %d is negative; write 0 for no end", *count)
		}
		return failed(top(c, *socket, *output, *interval, *count))
	}
	return c
}

// top prints snapshots until there were enough, or the command is interrupted.
func top(c *cobra.Command, socket, format string, interval time.Duration, count int) error {
	ctx, out := c.Context(), c.OutOrStdout()
	before, err := status.Fetch(ctx, socket)
	if err != nil {
		return err
	}
	asked := time.Now()
	for shown := 0; count == 0 || shown < count; shown++ {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(interval):
		}
		now, err := status.Fetch(ctx, socket)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		at := time.Now()
		if err := printSnapshot(out, format, compare(before, now, at.Sub(asked).Seconds(), at)); err != nil {
			return err
		}
		before, asked = now, at
	}
	return nil
}

// printSnapshot writes one: in JSON on a line of its own, on a terminal in the place of the last one.
func printSnapshot(out io.Writer, format string, s snapshot) error {
	if format != "text" {
		return writeJSON(out, s, "")
	}
	var text bytes.Buffer
	if isTerminal(out) {
		text.WriteString("\x1b[H\x1b[2J") // home, clear (console_codes(4))
	}
	fmt.Fprintf(&text, "%s  %s, %s\n\n", s.Time.Local().Format(time.TimeOnly), s.Node, oneLine(s.Summary))
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	line := func(name, state string, f flow) {
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%s\t%.0f\t%s\n", name, state, f.SentPackets, units.BitRate(f.SentBytes), f.ReceivedPackets, units.BitRate(f.ReceivedBytes))
	}
	fmt.Fprintf(w, "\tSTATE\tSENT/s\t\tRECEIVED/s\t\n")
	line("total", "", s.Total)
	for i, lane := range s.Lanes {
		line(fmt.Sprintf("lane %d", i), "", lane)
	}
	for _, p := range s.Peers[:min(len(s.Peers), mostPeersShown)] {
		line(printable(p.Name), p.State, p.flow)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if more := len(s.Peers) - mostPeersShown; more > 0 {
		fmt.Fprintf(&text, "and %d peers with less\n", more)
	}
	printDropRates(&text, "dropped", s.Drops)
	printDropRates(&text, "dropped by the guard table", s.GuardDrops)
	text.WriteString("\n")
	_, err := text.WriteTo(out)
	return err
}

func printDropRates(out io.Writer, by string, rates map[string]float64) {
	for _, name := range slices.Sorted(maps.Keys(rates)) {
		fmt.Fprintf(out, "%s: %.1f %s/s\n", by, rates[name], name)
	}
}

func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}
