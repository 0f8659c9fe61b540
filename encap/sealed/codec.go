package sealed

import (
	"net/netip"

	"weft/drop"
	"weft/encap"
	"weft/fib"
	"weft/packet"
	"weft/peer"
)

// Handshakes takes what arrives that is not data.
type Handshakes interface {
	// Receive is given a QUIC packet, which it must not keep. It returns drop.None, or
	// why it does not take it.
	Receive(payload []byte, from netip.AddrPort) drop.Reason
}

// Messages takes what nodes send each other beside packets.
type Messages interface {
	// Receive is given a message, which it must not keep. It returns drop.None, or why it does
	// not take it.
	Receive(from *peer.Peer, message []byte) drop.Reason
}

// Codec seals and opens for one lane. Its sealing and its opening half may each be used
// by one goroutine.
type Codec struct {
	// Messages takes messages. Without it they are malformed packets.
	Messages Messages

	peers       *Peers
	handshakes  Handshakes
	lane, lanes int

	out struct { // where the packet before went to: most go to the same peer
		known *known
		to    *peer.Peer
		peer  *Peer

		epoch  *Epoch // that was last sealed with
		proven bool   // its keys were agreed at to's endpoint
	}
	in struct { // where the datagram before came from
		opener *opener
		index  uint32
		table  *fib.Table
		peer   *peer.Peer
	}
}

// NewCodec returns the codec of one lane of several.
func NewCodec(peers *Peers, handshakes Handshakes, lane, lanes int) *Codec {
	return &Codec{peers: peers, handshakes: handshakes, lane: lane, lanes: lanes}
}

// Encode adds the datagrams that carry f to the batch. They share f's memory. A packet
// to a peer with whom no keys are agreed yet waits, and Encode returns drop.None.
func (c *Codec) Encode(out *encap.Batch, f *packet.Frame, _, to *peer.Peer) drop.Reason {
	peer := c.peer(to)
	if peer == nil {
		return drop.NoKeys
	}
	for {
		if e := peer.sending.Load(); e != nil {
			if !c.proven(e) && isDestination(f, to.Endpoint.Addr()) {
				peer.want()
				return drop.NoKeys
			}
			s := e.sealer(c.lane)
			if s == nil {
				return drop.NoKeys
			}
			out.Singly = peer.singly.Load()
			before := out.InRuns
			reason := s.seal(out, f, to)
			s.inRuns.Store(s.inRuns.Load() + out.InRuns - before) // only this lane writes it
			return reason
		}
		var node netip.Addr
		if addr := to.Endpoint.Addr(); isDestination(f, addr) {
			node = addr
		}
		if waits, reason := peer.wait(f, node); waits {
			return reason
		}
	}
}

// proven reports whether an epoch's keys were agreed at the endpoint address of whom the
// packet goes to. A node may claim any address in the list of nodes. It has those only at
// which it has answered with its key, as a packet's source and as its destination.
func (c *Codec) proven(e *Epoch) bool {
	if c.out.epoch != e {
		c.out.epoch, c.out.proven = e, e.at == c.out.to.Endpoint.Addr()
	}
	return c.out.proven
}

func isDestination(f *packet.Frame, addr netip.Addr) bool {
	header, ok := packet.Parse(f.Packet())
	return ok && header.Destination == addr
}

func isSource(f *packet.Frame, addr netip.Addr) bool {
	header, ok := packet.Parse(f.Packet())
	return ok && header.Source == addr
}

// peer returns whom to's keys are agreed with.
func (c *Codec) peer(to *peer.Peer) *Peer {
	known := c.peers.known.Load()
	if last := &c.out; last.to != to || last.known != known {
		last.to, last.known, last.peer, last.epoch = to, known, known.peers[to.Key], nil
	}
	return c.out.peer
}

// Decode checks and opens a datagram, and returns the peer whose key sealed it. What
// belongs to a handshake it hands on: then both results are zero.
func (c *Codec) Decode(r *encap.Received, table *fib.Table) (*peer.Peer, drop.Reason) {
	b := r.Packet()
	if len(b) > 0 && b[0] >= quicBit {
		return nil, c.handshakes.Receive(b, r.From)
	}
	if len(b) < HeaderLen+TagLen {
		return nil, drop.Truncated
	}
	h, ok := parseHeader(b)
	if !ok {
		return nil, drop.BadHeader
	}
	o := c.opener(h.index)
	if o == nil {
		c.peers.unknownIndex(r.From.Addr(), table)
		return nil, drop.UnknownIndex
	}
	plain, reason := o.open(b, h.counter)
	if reason != drop.None {
		return nil, reason
	}
	if !o.epoch.proven.Load() { // at the first datagram only
		o.epoch.prove()
	}
	r.Pull(HeaderLen)
	r.Trim(len(plain))
	if c.in.table != table {
		c.in.table, c.in.peer = table, table.ByKey(o.epoch.peer.Key)
	}
	peer := c.in.peer
	if peer == nil {
		return nil, drop.UnknownPeer
	}
	endpoint := peer.Endpoint.Addr()
	if r.From.Addr() != endpoint {
		c.peers.moved(peer, r.From.Addr())
	}
	if isMessage(plain) && c.Messages != nil {
		return nil, c.Messages.Receive(peer, plain)
	}
	if o.epoch.at != endpoint && isSource(&r.Frame, endpoint) {
		o.epoch.peer.want() // to prove it
		return nil, drop.SourceNotPeer
	}
	return peer, drop.None
}

// opener returns the half of the epoch that an index names, or nil.
func (c *Codec) opener(index uint32) *opener {
	if o := c.in.opener; o != nil && c.in.index == index && !o.epoch.retired.Load() {
		return o
	}
	c.in.opener, c.in.table = nil, nil
	lane := int(index % maxLanes)
	if lane%c.lanes != c.lane { // forged: the socket's filter would have brought it elsewhere
		return nil
	}
	e := c.peers.sessions.find(index)
	if e == nil {
		return nil
	}
	c.in.opener, c.in.index = e.opener(lane), index
	return c.in.opener
}
