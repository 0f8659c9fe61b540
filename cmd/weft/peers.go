package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"weft/internal/config"
	"weft/internal/status"
)

func newPeersCommand(socket *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "peers [PEER...]",
		Short: "Show the links between this node and its peers",
		Long: "Show the links between this node and its peers, or only the named ones. HEARD is how long ago\n" +
			"the peer last showed that it is alive, KEYS AGE how old the current data keys are. SENT and\n" +
			"RECEIVED are pods' packets, REFUSED are datagrams that were replayed, or sealed with another key.",
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
			if report.Encapsulation == string(config.EncapsulationVXLAN) {
				return printEndpoints(out, peers)
			}
			return printPeers(out, peers, time.Now())
		})
		return failed(err)
	}
	return c
}

// printEndpoints writes what is known of peers without keys.
func printEndpoints(out io.Writer, peers []status.Peer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "NAME\tENDPOINT\n")
	for _, p := range peers {
		fmt.Fprintf(w, "%s\t%s\n", p.Name, p.Endpoint)
	}
	fmt.Fprintf(w, "\nvxlan does not show whether peers are alive.\n")
	return w.Flush()
}

// printPeers writes a line for each peer, as of now, and one more for each unreachable one.
func printPeers(out io.Writer, peers []status.Peer, now time.Time) error {
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "NAME\tENDPOINT\tSTATE\tHEARD\tKEYS AGE\tRTT\tSENT\tRECEIVED\tREFUSED\n")
	for _, p := range peers {
		if p.Link == nil {
			fmt.Fprintf(w, "%s\t%s\t-\t-\t-\t-\t-\t-\t-\n", p.Name, p.Endpoint)
			continue
		}
		heard, age, rtt := "-", "-", "-"
		if !p.Heard.IsZero() {
			heard = max(0, now.Sub(p.Heard)).Round(time.Second).String()
		}
		if !p.KeysBegan.IsZero() {
			age = now.Sub(p.KeysBegan).Round(time.Second).String()
		}
		if p.RTT > 0 {
			rtt = (time.Duration(p.RTT) * time.Microsecond).String()
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", p.Name, p.Endpoint, p.State, heard, age, rtt,
			traffic(p.SentPackets, p.SentBytes), traffic(p.ReceivedPackets, p.ReceivedBytes), p.Refused)
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
	return fmt.Sprintf("%d %s, %s", packets, plural(packets, "packet"), size(bytes))
}

// trouble is the line on why there are no keys with a peer, or none that are new, and when
// that is tried again.
func trouble(p status.Peer, now time.Time) string {
	if p.Link == nil || p.Error == "" {
		return ""
	}
	text := "  " + printable(strings.ReplaceAll(p.Error, "\n", " "))
	if p.KeysOverdue {
		text = "  KEYS OVERDUE: " + text[2:]
	}
	if p.Failures > 1 {
		text += fmt.Sprintf(", %d times in a row", p.Failures)
	}
	if wait := p.Retry.Sub(now); wait > 0 {
		return text + fmt.Sprintf("; retried in %s if there are packets for it\n", wait.Round(100*time.Millisecond))
	}
	return text + "; retried with the next packet for it\n"
}

// printable replaces characters of an error that could control a terminal: a non-peer may
// have chosen them.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\n' && !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}
