package router

import (
	"sync/atomic"
	"time"

	"weft/drop"
	"weft/packet"
	"weft/peer"
)

// Captured is a copy of a pod's packet that a lane has met while a Capture ran.
type Captured struct {
	Time time.Time
	Lane int

	// Outbound says that the packet was on its way from a pod to a peer.
	Outbound bool

	// Peer is the name of the node that the packet was for, or came from; empty if there is none.
	Peer string

	// Reason says why the packet was dropped; drop.None if it was not.
	Reason drop.Reason

	// Length is the packet's length in bytes. SegmentSize is that of the payload of each segment
	// into which a super-packet will be cut, or 0.
	Length, SegmentSize int

	// Data are the packet's first bytes. Its checksum may be partial (docs/WIRE.md).
	Data []byte
}

// Capture copies the packets that lanes meet. What a reader is too slow for is lost to it, and never
// holds up a lane.
type Capture struct {
	// Match says whether to copy a packet, by its header and its node, if it was parsed. Several
	// lanes call it. Nil copies all.
	Match func(header packet.Header, parsed bool) bool

	// Dropped has only packets copied that were dropped.
	Dropped bool

	// SnapLen is how many bytes of a packet are copied at the most.
	SnapLen int

	// Room is how many bytes of copies may wait in Packets at the most: whoever reads them calls Taken.
	Room    int64
	waiting atomic.Int64

	// Packets receives the copies. Lost counts those that it had no room for.
	Packets chan Captured
	Lost    atomic.Uint64
}

// Capture has all lanes copy packets to c, from the next batch of each on, until another Capture takes
// its place; nil ends it. A batch that is under way may still copy some.
func (r *Router) Capture(c *Capture) { r.capture.Store(c) }

// copied is a packet before it is known what becomes of it; nil if it is not to be captured.
type copied struct{ Captured }

// copy copies a packet, before an encapsulation writes over it.
func (c *Capture) copy(f *packet.Frame) *copied {
	if c == nil { // as it is nearly always: the rest is another function, so that this is inlined
		return nil
	}
	return c.copyMatching(f)
}

func (c *Capture) copyMatching(f *packet.Frame) *copied {
	b := f.Packet()
	header, ok := packet.Parse(b)
	if c.Match != nil && !c.Match(header, ok) {
		return nil
	}
	length := len(b)
	if ok && f.Virtio.GSOType == 0 {
		length = header.Len
	}
	if c.waiting.Load() >= c.Room {
		c.Lost.Add(1)
		return nil
	}
	at := &copied{Captured{Time: time.Now(), Length: length, Data: append([]byte(nil), b[:min(length, c.SnapLen)]...)}}
	if f.Virtio.GSOType != 0 {
		at.SegmentSize = int(f.Virtio.GSOSize)
	}
	return at
}

func nameOf(p *peer.Peer) string {
	if p == nil {
		return ""
	}
	return p.Name
}

// take passes a packet on, now that it is known what became of it.
func (c *Capture) take(p *copied, lane int, outbound bool, peer string, reason drop.Reason) {
	if c.Dropped && reason == drop.None {
		return
	}
	p.Lane, p.Outbound, p.Peer, p.Reason = lane, outbound, peer, reason
	c.waiting.Add(int64(len(p.Data)))
	select {
	case c.Packets <- p.Captured:
	default:
		c.waiting.Add(-int64(len(p.Data)))
		c.Lost.Add(1)
	}
}

// Taken says that a packet was read from Packets.
func (c *Capture) Taken(p Captured) { c.waiting.Add(-int64(len(p.Data))) }
