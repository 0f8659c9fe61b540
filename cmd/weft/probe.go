package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"weft/internal/status"
)

// probesAtOnce is to how many peers paths are probed at a time.
const probesAtOnce = 16

func newProbeCommand(socket *string) *cobra.Command {
	c := &cobra.Command{
		Use:   "probe [PEER...]",
		Short: "Probe the data path to peers: reachability, round-trip time, loss, path MTU",
		Long: "Probe the data path to all peers, or to the named ones, from each lane of this node. The peers'\n" +
			"weftd answers; pods and the peers' kernels are not involved. MTU is the size in bytes of the\n" +
			"largest packets of pods that arrive at the peer. A smaller one than pods may send is noted, and\n" +
			"weftd has the kernel report it to pods. The exit status is 1 if a peer does not answer.",
	}
	exits(c, "all the peers answer", "a peer does not answer")
	rounds := c.Flags().IntP("count", "c", 5, fmt.Sprintf("`number` of rounds, 1 to %d, with one probe from each lane", status.MaxProbeRounds))
	output := addOutput(c)
	c.RunE = func(c *cobra.Command, names []string) error {
		if *rounds < 1 || *rounds > status.MaxProbeRounds {
			return fmt.Errorf("--count %d: must be from 1 to %d", *rounds, status.MaxProbeRounds)
		}
		report, err := status.Fetch(c.Context(), *socket)
		if err != nil {
			return failed(err)
		}
		peers, err := report.Select(names)
		if err != nil {
			return failed(err)
		}
		probes, err := probeAll(c, *socket, peers, *rounds)
		if err != nil {
			return failed(err)
		}
		shown := show(c.OutOrStdout(), *output, probes, func(out io.Writer) error { return printProbes(out, probes) })
		return failed(errors.Join(shown, unanswered(probes)))
	}
	return c
}

// probeAll probes the peers, some at a time, and says on stderr how far it is.
func probeAll(c *cobra.Command, socket string, peers []status.Peer, rounds int) ([]status.Probe, error) {
	probes := make([]status.Probe, len(peers))
	group, ctx := errgroup.WithContext(c.Context())
	group.SetLimit(probesAtOnce)
	var mu sync.Mutex
	done := 0
	for i, p := range peers {
		group.Go(func() (err error) {
			if probes[i], err = status.AskProbe(ctx, socket, p.Name, rounds); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if done++; len(peers) > probesAtOnce && (done%probesAtOnce == 0 || done == len(peers)) {
				fmt.Fprintf(c.ErrOrStderr(), "probed %d of %d peers\n", done, len(peers))
			}
			return nil
		})
	}
	return probes, group.Wait()
}

// unanswered is the error if there is a peer that did not answer.
func unanswered(probes []status.Probe) error {
	n := 0
	for _, p := range probes {
		if p.Error != "" {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d %s not reached", n, len(probes), plural(len(probes), "peer"))
}

func printProbes(out io.Writer, probes []status.Probe) error {
	var table, notes bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "PEER\tENDPOINT\tANSWERED\tLOSS\tRTT MIN/AVG/MAX\tMTU\n")
	for _, p := range probes {
		loss, rtt, mtu := "-", "-", "-"
		if p.Sent > 0 {
			loss = fmt.Sprintf("%.0f %%", 100*float64(p.Sent-p.Answered)/float64(p.Sent))
		}
		if p.Answered > 0 {
			rtt = fmt.Sprintf("%s/%s/%s", micros(p.Min), micros(p.Average), micros(p.Max))
			mtu = fmt.Sprint(p.MTU)
		}
		fmt.Fprintf(w, "%s\t%s\t%d of %d\t%s\t%s\t%s\n", p.Peer, p.Endpoint, p.Answered, p.Sent, loss, rtt, mtu)
		switch {
		case p.Error != "":
			fmt.Fprintf(&notes, "%s: %s\n", p.Peer, oneLine(p.Error))
		case p.MTU < p.Largest:
			fmt.Fprintf(&notes, "%s: packets of %d to %d bytes get lost on the path; raise its MTU by %d bytes, or set tun.mtu to %d\n",
				p.Peer, p.MTU+1, p.Largest, p.Largest-p.MTU, p.MTU)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if notes.Len() > 0 {
		table.WriteString("\n")
	}
	_, err := io.Copy(out, io.MultiReader(&table, &notes))
	return err
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
