package main

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/status"
	"weft/internal/units"
)

func newPeersCommand(socket *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "peers [PEER...]",
		Short: "Show the links between this node and its peers",
		Long: "Show the links between this node and its peers, or only the named ones. HEARD is how long ago\n" +
			"the peer last showed that it is alive, KEYS AGE how old the current data keys are. LOSS is of the last\n" +
			"probes, MTU the size in bytes of the largest packets of pods that arrive. SENT and RECEIVED are pods'\n" +
			"packets, REFUSED are datagrams that were replayed, or sealed with another key. With vxlan, STATE and\n" +
			"HEARD are what probes show; a kernel VXLAN device answers none.",
	}
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, names []string) error {
		report, err := status.Fetch(c.Context(), *socket)
		if err != nil {
			return failed(err)
		}
		peers, err := report.Select(names)
		if err != nil {
			return failed(err)
		}
		err = show(c.OutOrStdout(), *output, peers, func(out io.Writer) error {
			return printPeers(out, peers, time.Now())
		})
		return failed(err)
	}
	return c
}

// printPeers writes a line for each peer, as of now, and one more for each unreachable one.
func printPeers(out io.Writer, peers []status.Peer, now time.Time) error {
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "NAME\tENDPOINT\tSTATE\tHEARD\tKEYS AGE\tRTT\tLOSS\tMTU\tSENT\tRECEIVED\tREFUSED\n")
	for _, p := range peers {
		heard, age, loss, mtu, refused := "-", "-", "-", "-", "-"
		if at := p.HeardAt(); !at.IsZero() {
			heard = max(0, now.Sub(at)).Round(time.Second).String()
		}
		if p.Link != nil {
			refused = strconv.FormatUint(p.Refused, 10)
			if !p.KeysBegan.IsZero() {
				age = now.Sub(p.KeysBegan).Round(time.Second).String()
			}
		}
		if path := p.Probed(); path != nil {
			loss, mtu = fmt.Sprintf("%.0f %%", 100*path.Loss), strconv.Itoa(path.MTU)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Name, p.Endpoint, p.StateAt(now), heard, age, rttOf(p), loss, mtu,
			traffic(p.SentPackets, p.SentBytes), traffic(p.ReceivedPackets, p.ReceivedBytes), refused)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	// A line without columns would end those of the table, so it comes in afterwards.
	heading, lines, _ := strings.Cut(table.String(), "\n")
	text := bytes.NewBufferString(heading + "\n")
	for i, line := range strings.SplitAfter(lines, "\n") {
		text.WriteString(line)
		if i < len(peers) {
			text.WriteString(trouble(peers[i], now))
		}
	}
	_, err := text.WriteTo(out)
	return err
}

func traffic(packets, bytes uint64) string {
	return fmt.Sprintf("%d %s, %s", packets, plural(packets, "packet"), units.Bytes(bytes))
}

// trouble is the line on why there are no keys with a peer, or none that are new, and when
// that is tried again.
func trouble(p status.Peer, now time.Time) string {
	switch {
	case p.Link == nil && p.Unreachable():
		return "  " + p.Reason() + "\n"
	case p.Link == nil || p.Error == "":
		return ""
	}
	text := "  "
	if p.KeysOverdue {
		text += "KEYS OVERDUE: "
	}
	if p.Failures > 1 {
		text += fmt.Sprintf("failed %d times in a row: ", p.Failures)
	}
	text += oneLine(p.Error)
	if wait := p.Retry.Sub(now); wait > 0 {
		return text + fmt.Sprintf("; retried in %s if there are packets for it\n", wait.Round(100*time.Millisecond))
	}
	return text + "; retried with the next packet for it\n"
}
