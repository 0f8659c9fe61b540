// Package vxlan is the VXLAN header (RFC 7348 §5) as the Linux kernel's VXLAN
// device sends and accepts it, so that either end may be a kernel.
//
// It carries IP only: ARP and other Ethernet frames of a kernel peer are dropped.
// Nothing here is authenticated: a peer is who its underlay address says.
package vxlan

import (
	"encoding/binary"
	"net/netip"

	"weft/drop"
	"weft/encap"
	"weft/fib"
	"weft/packet"
	"weft/peer"
)

const (
	// HeaderLen is what VXLAN puts before a packet: its own header and Ethernet's.
	HeaderLen = vxlanLen + ethernetLen

	vxlanLen    = 8
	ethernetLen = 14

	// flagVNI is the only flag that may be set. The kernel too drops a header with
	// flags it was not configured for (vxlan_rcv in drivers/net/vxlan/vxlan_core.c):
	// they change what the rest means.
	flagVNI = 0x08 << 24

	etherTypeIPv4 = 0x0800
	etherTypeIPv6 = 0x86dd

	// etherTypeMessage is that of messages between nodes: the first one for local experiments
	// (IEEE 802-2014 §9.2.4). Kernels, and earlier versions of weft, drop these frames.
	etherTypeMessage = 0x88b5
)

// Overhead is by how many bytes the packet on the underlay is longer than the
// pod's: VXLAN, Ethernet, UDP, and the outer IP header.
func Overhead(ipv6Underlay bool) int {
	const udpLen = 8
	if ipv6Underlay {
		return HeaderLen + udpLen + 40
	}
	return HeaderLen + udpLen + 20
}

// Messages takes what nodes send each other beside packets.
type Messages interface {
	// Receive is given a message, which it must not keep. It returns drop.None, or why it does
	// not take it.
	Receive(from *peer.Peer, message []byte) drop.Reason
}

// Codec encodes and decodes for one VXLAN network. Its encoding and its decoding half
// may each be used by one goroutine: each lane has a Codec.
type Codec struct {
	// Messages takes messages. Without it they are dropped.
	Messages Messages

	// Peers counts what passes in this lane, and says which peers get no runs, unless it is nil.
	Peers *Peers
	Lane  int

	vni uint32 // as on the wire: shifted over the reserved byte

	out struct { // where the packet before went to: most go to the same peer
		to    *peer.Peer
		known *Peer // nil counts nothing
	}
	last struct { // who sent the datagram before: most come from the same peer
		table *fib.Table
		addr  netip.Addr
		peer  *peer.Peer
		known *Peer // nil counts nothing
	}
}

// New returns the codec for a network identifier of 24 bits.
func New(vni uint32) *Codec { return &Codec{vni: vni << 8} }

// Encode adds the datagrams that carry f to the batch. They share f's memory.
func (c *Codec) Encode(out *encap.Batch, f *packet.Frame, from, to *peer.Peer) drop.Reason {
	known := c.destination(to)
	out.Singly = known != nil && known.singly.Load()
	ipv4, class := packet.IsIPv4(f.Packet()), packet.TrafficClass(f.Packet())
	if f.Virtio.GSOType == 0 {
		if to.Kernel && !f.Complete() {
			return drop.Unfinished
		}
		bytes := f.Len() // Push changes it
		c.header(f.Push(HeaderLen), ipv4, from, to)
		out.Add(to, class, f.Packet(), nil, bytes)
		c.count(known, 1, bytes)
		return drop.None
	}
	segments, ok := f.Cut(to.Kernel)
	if !ok {
		return drop.Unfinished
	}
	var before []byte // the headers of the segment before
	for i := range segments.Count {
		h := out.Space(HeaderLen + segments.HeaderLen)
		if i == 0 {
			c.header(h, ipv4, from, to)
			segments.Header(h[HeaderLen:], 0)
		} else {
			copy(h, before)
			segments.Next(h[HeaderLen:], i)
		}
		before = h
		payload := segments.Payload(i)
		out.Add(to, class, h, payload, segments.HeaderLen+len(payload))
	}
	c.count(known, segments.Count, segments.Len())
	return drop.None
}

// destination returns what is known of the peer that a packet goes to, or nil.
func (c *Codec) destination(to *peer.Peer) *Peer {
	if c.out.to != to {
		c.out.to, c.out.known = to, c.known(to)
	}
	return c.out.known
}

func (c *Codec) known(p *peer.Peer) *Peer {
	if c.Peers == nil || p == nil {
		return nil
	}
	return (*c.Peers.known.Load())[p.Name]
}

// count counts packets to a peer.
func (c *Codec) count(to *Peer, packets, bytes int) {
	if to != nil {
		to.lanes[c.Lane].sent(packets, bytes)
	}
}

// Message returns the datagram that carries a message to a peer.
func Message(vni uint32, from, to *peer.Peer, message []byte) []byte {
	b := make([]byte, HeaderLen, HeaderLen+len(message))
	putHeader(b, vni<<8, etherTypeMessage, from, to)
	return append(b, message...)
}

func (c *Codec) header(h []byte, ipv4 bool, from, to *peer.Peer) {
	etherType := uint16(etherTypeIPv6)
	if ipv4 {
		etherType = etherTypeIPv4
	}
	putHeader(h, c.vni, etherType, from, to)
}

func putHeader(h []byte, vni uint32, etherType uint16, from, to *peer.Peer) {
	binary.BigEndian.PutUint32(h[0:], flagVNI)
	binary.BigEndian.PutUint32(h[4:], vni)
	copy(h[8:], to.VTEPMAC[:])
	copy(h[14:], from.VTEPMAC[:])
	binary.BigEndian.PutUint16(h[20:], etherType)
}

// Decode checks and removes the headers, and returns the peer that the datagram
// comes from by its underlay address. The source port is not looked at: RFC 7348
// §5 has the sender choose it per flow.
func (c *Codec) Decode(r *encap.Received, table *fib.Table) (*peer.Peer, drop.Reason) {
	from := c.sender(r.From.Addr(), table)
	if from == nil {
		return nil, drop.UnknownPeer
	}
	h := r.Packet()
	if len(h) < HeaderLen {
		return nil, drop.Truncated
	}
	if binary.BigEndian.Uint32(h[0:]) != flagVNI || h[7] != 0 {
		return nil, drop.BadHeader
	}
	if binary.BigEndian.Uint32(h[4:]) != c.vni {
		return nil, drop.WrongVNI
	}
	if peer.MAC(h[8:14]) != table.Self().VTEPMAC {
		return nil, drop.WrongMAC
	}
	etherType := binary.BigEndian.Uint16(h[20:])
	if etherType == etherTypeMessage && c.Messages != nil {
		return nil, c.Messages.Receive(from, h[HeaderLen:])
	}
	if etherType != etherTypeIPv4 && etherType != etherTypeIPv6 {
		return nil, drop.NotIP
	}
	r.Pull(HeaderLen)
	if known := c.last.known; known != nil {
		known.lanes[c.Lane].received(r.Len())
	}
	return from, drop.None
}

// sender returns the peer that has the underlay address addr, or nil.
func (c *Codec) sender(addr netip.Addr, table *fib.Table) *peer.Peer {
	if last := &c.last; last.addr != addr || last.table != table {
		last.addr, last.table = addr, table
		last.peer, _ = table.Sender(addr)
		last.known = c.known(last.peer)
	}
	return c.last.peer
}
