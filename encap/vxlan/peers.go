package vxlan

import (
	"sync/atomic"

	"weft/peer"
)

// Peers counts what passes with each peer, and knows which ones get no runs. Lanes count without a
// lock; its methods may be called from several goroutines, but Set by one at a time.
type Peers struct {
	lanes int
	known atomic.Pointer[map[string]*Peer]
}

// Peer is what has passed with one, by lane.
type Peer struct {
	lanes  []counters
	singly atomic.Bool // no runs
}

// counters are one lane's. The lane's two goroutines write one half each.
type counters struct {
	sentPackets, sentBytes         atomic.Uint64
	_                              [48]byte // keeps the halves, and lanes, off each other's cache line
	receivedPackets, receivedBytes atomic.Uint64
	_                              [48]byte
}

// NewPeers returns an empty set, for so many lanes.
func NewPeers(lanes int) *Peers {
	p := &Peers{lanes: lanes}
	p.known.Store(&map[string]*Peer{})
	return p
}

// Set makes the peers those of a Plan. What has passed with those that were there before stays.
func (p *Peers) Set(all []*peer.Peer) {
	before, now := *p.known.Load(), make(map[string]*Peer, len(all))
	for _, at := range all {
		known, ok := before[at.Name]
		if !ok {
			known = &Peer{lanes: make([]counters, p.lanes)}
		}
		now[at.Name] = known
	}
	p.known.Store(&now)
}

// SendSingly has each datagram to the named peers sent as a message of its own, and runs to the others.
func (p *Peers) SendSingly(names map[string]bool) {
	for name, known := range *p.known.Load() {
		known.singly.Store(names[name])
	}
}

// Traffic is what passed with a peer, of the pods' packets, without encapsulation. Received are
// those that came from its address, before they were checked.
type Traffic struct {
	SentPackets, SentBytes         uint64
	ReceivedPackets, ReceivedBytes uint64
}

// Traffic returns what has passed until now, by the peers' names.
func (p *Peers) Traffic() map[string]Traffic {
	known := *p.known.Load()
	all := make(map[string]Traffic, len(known))
	for name, known := range known {
		var t Traffic
		for i := range known.lanes {
			c := &known.lanes[i]
			t.SentPackets += c.sentPackets.Load()
			t.SentBytes += c.sentBytes.Load()
			t.ReceivedPackets += c.receivedPackets.Load()
			t.ReceivedBytes += c.receivedBytes.Load()
		}
		all[name] = t
	}
	return all
}

func (c *counters) sent(packets, bytes int) {
	c.sentPackets.Store(c.sentPackets.Load() + uint64(packets)) // only this lane writes them
	c.sentBytes.Store(c.sentBytes.Load() + uint64(bytes))
}

func (c *counters) received(bytes int) {
	c.receivedPackets.Store(c.receivedPackets.Load() + 1) // only this lane writes them
	c.receivedBytes.Store(c.receivedBytes.Load() + uint64(bytes))
}
