package router

import (
	"sync/atomic"

	"weft/drop"
)

// counters are one lane's in one direction. One goroutine writes them, others read:
// the atomic additions are uncontended, once per batch or per drop.
type counters struct {
	packets, bytes, superPackets atomic.Uint64
	drops                        [drop.Count]atomic.Uint64

	_ [64]byte // keeps the next lane's counters off this one's cache line
}

func (c *counters) add(t Traffic) {
	if t.Packets > 0 {
		c.packets.Add(t.Packets)
		c.bytes.Add(t.Bytes)
		c.superPackets.Add(t.SuperPackets)
	}
}

func (c *counters) drop(reason drop.Reason) { c.drops[reason].Add(1) }

// Traffic is what went one way since the counters began.
type Traffic struct {
	// Packets and Bytes are the pods' packets that were handed on, without encapsulation.
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`

	// SuperPackets are the ones that passed the TUN device unsegmented; each stands for
	// several of Packets.
	SuperPackets uint64 `json:"superPackets"`
}

// Stats is what a router has done since its counters began, in one lane or in all of them.
type Stats struct {
	Outbound Traffic `json:"outbound"`
	Inbound  Traffic `json:"inbound"`

	// Drops counts packets by reason, both directions together: almost every reason
	// belongs to one.
	Drops [drop.Count]uint64 `json:"-"`
}

// Stats returns the counters as they are now.
func (r *Router) Stats() Stats {
	var s Stats
	for i := range r.lanes {
		r.lanes[i].addTo(&s)
	}
	return s
}

// Lanes returns the counters of each lane as they are now.
func (r *Router) Lanes() []Stats {
	all := make([]Stats, len(r.lanes))
	for i := range r.lanes {
		r.lanes[i].addTo(&all[i])
	}
	return all
}

// Restore has the counters go on from what another router's Lanes returned. It comes before Run.
func (r *Router) Restore(lanes []Stats) {
	for i := range min(len(lanes), len(r.lanes)) {
		r.lanes[i].out.add(lanes[i].Outbound)
		r.lanes[i].in.add(lanes[i].Inbound)
		for reason, n := range lanes[i].Drops {
			r.lanes[i].in.drops[reason].Add(n)
		}
	}
}

func (l *lane) addTo(s *Stats) {
	l.out.addTo(&s.Outbound, &s.Drops)
	l.in.addTo(&s.Inbound, &s.Drops)
}

func (c *counters) addTo(t *Traffic, drops *[drop.Count]uint64) {
	t.Packets += c.packets.Load()
	t.Bytes += c.bytes.Load()
	t.SuperPackets += c.superPackets.Load()
	for reason := range c.drops {
		drops[reason] += c.drops[reason].Load()
	}
}
