package main

import (
	"maps"
	"slices"
	"time"

	"weft/internal/status"
	"weft/router"
)

// flow is what passes in a second, each way.
type flow struct {
	SentPackets     float64 `json:"sentPackets"`
	SentBytes       float64 `json:"sentBytes"`
	ReceivedPackets float64 `json:"receivedPackets"`
	ReceivedBytes   float64 `json:"receivedBytes"`
}

// bytes is what passes both ways.
func (f flow) bytes() float64 { return f.SentBytes + f.ReceivedBytes }

// peerFlow is what passes with a peer.
type peerFlow struct {
	Name  string `json:"name"`
	State string `json:"state,omitempty"`
	flow
}

// snapshot is what happened between two reports, a second.
type snapshot struct {
	Time       time.Time          `json:"time"`
	Node       string             `json:"node"`
	Summary    string             `json:"summary"`
	Total      flow               `json:"total"`
	Lanes      []flow             `json:"lanes"`
	Peers      []peerFlow         `json:"peers"`      // the busiest first
	Drops      map[string]float64 `json:"drops"`      // by reason
	GuardDrops map[string]float64 `json:"guardDrops"` // by counter
}

// compare returns what happened between two reports that were made some seconds apart.
func compare(before, now status.Report, seconds float64, at time.Time) snapshot {
	s := snapshot{Time: at, Node: now.Node, Summary: now.Summary, Total: flowOf(before.Stats, now.Stats, seconds), Lanes: []flow{}, Peers: []peerFlow{},
		Drops: ratesOf(before.Drops, now.Drops, seconds), GuardDrops: ratesOf(before.GuardDrops, now.GuardDrops, seconds)}
	for i, lane := range now.Lanes {
		var b router.Stats
		if i < len(before.Lanes) {
			b = before.Lanes[i]
		}
		s.Lanes = append(s.Lanes, flowOf(b, lane, seconds))
	}
	known := map[string]status.Traffic{}
	for _, p := range before.Peers {
		known[p.Name] = p.Traffic
	}
	for _, p := range now.Peers {
		b, ok := known[p.Name]
		if !ok { // it came just now
			b = p.Traffic
		}
		s.Peers = append(s.Peers, peerFlow{p.Name, p.StateAt(at), flow{
			per(b.SentPackets, p.SentPackets, seconds), per(b.SentBytes, p.SentBytes, seconds),
			per(b.ReceivedPackets, p.ReceivedPackets, seconds), per(b.ReceivedBytes, p.ReceivedBytes, seconds)}})
	}
	slices.SortStableFunc(s.Peers, func(a, b peerFlow) int {
		switch {
		case a.bytes() > b.bytes():
			return -1
		case a.bytes() < b.bytes():
			return 1
		}
		return 0
	})
	return s
}

func flowOf(before, now router.Stats, seconds float64) flow {
	return flow{
		per(before.Outbound.Packets, now.Outbound.Packets, seconds), per(before.Outbound.Bytes, now.Outbound.Bytes, seconds),
		per(before.Inbound.Packets, now.Inbound.Packets, seconds), per(before.Inbound.Bytes, now.Inbound.Bytes, seconds),
	}
}

// ratesOf returns the counters that have grown.
func ratesOf(before, now map[string]uint64, seconds float64) map[string]float64 {
	rates := map[string]float64{}
	for name := range maps.Keys(now) {
		if rate := per(before[name], now[name], seconds); rate > 0 {
			rates[name] = rate
		}
	}
	return rates
}

// per is the rate of a counter. One that is smaller than before began anew.
func per(before, now uint64, seconds float64) float64 {
	if now < before {
		before = 0
	}
	return float64(now-before) / seconds
}
