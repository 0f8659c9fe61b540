package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"weft/control"
	"weft/internal/status"
	"weft/internal/units"
)

// mostPeersShown is how many peers `weft status` lists.
const mostPeersShown = 20

// printTopPeers writes a line for each peer, those with problems first, then those that most
// passes with. Of a large cluster it writes the first ones.
func printTopPeers(w io.Writer, all []status.Peer, now time.Time) {
	peers := slices.Clone(all)
	slices.SortStableFunc(peers, func(a, b status.Peer) int {
		return cmp.Or(cmp.Compare(soundness(a), soundness(b)), -cmp.Compare(rate(a), rate(b)), cmp.Compare(a.Name, b.Name))
	})
	shown := peers[:min(len(peers), mostPeersShown)]
	fmt.Fprintf(w, "PEER\tENDPOINT\tSTATE\tRTT\tSENT\tRECEIVED\tPREFIXES\n")
	for _, p := range shown {
		sent, received := "-", "-"
		if p.Rates != nil {
			sent, received = units.BitRate(float64(p.Rates.SentBytes)), units.BitRate(float64(p.Rates.ReceivedBytes))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Name, p.Endpoint, p.StateAt(now), rttOf(p), sent, received, control.Join(p.Prefixes))
	}
	if more := len(peers) - len(shown); more > 0 {
		fmt.Fprintf(w, "and %d more; `weft peers` lists all\n", more)
	}
}

// soundness orders peers: 0 if something is wrong, otherwise 1.
func soundness(p status.Peer) int {
	if p.Unreachable() || p.Link != nil && p.KeysOverdue {
		return 0
	}
	return 1
}

func rttOf(p status.Peer) string {
	if p.RoundTrip() == 0 {
		return "-"
	}
	return p.RoundTrip().String()
}

// peerStates counts peers by state: "2 up, 1 unreachable".
func peerStates(peers []status.Peer, now time.Time) string {
	counts := map[string]int{}
	for _, p := range peers {
		counts[p.StateAt(now)]++
	}
	var all []string
	for _, state := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, fmt.Sprintf("%d %s", counts[state], state))
	}
	return strings.Join(all, ", ")
}

func rate(p status.Peer) uint64 {
	if p.Rates == nil {
		return 0
	}
	return p.Rates.SentBytes + p.Rates.ReceivedBytes
}
