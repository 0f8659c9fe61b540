package packet

import (
	"bytes"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// maxOpen is how many flows are joined side by side. A batch rarely holds more.
const maxOpen = 16

// maxDatagrams is how many datagrams a super-packet of UDP holds at the most. The
// kernel refuses one of more (UDP_MAX_SEGMENTS in virtio_net_hdr_to_skb: 64 before
// Linux 6.9, 128 since).
const maxDatagrams = 64

// Coalescer joins the segments of each flow in a batch into super-packets, as the
// kernel's GRO would (tcp_gro_receive, udp_gro_receive), without copying payload.
// The packets of a flow stay in order. A Coalescer belongs to one lane.
type Coalescer struct {
	// TCP and UDP say which segments are joined: the device must take them (TSO, USO).
	TCP, UDP bool

	frames []Frame
	rests  [][][]byte // memory of each frame's Rest
	open   []run      // what may still grow

	// predicted is how the next packet of the run that grew last begins if its sender
	// just goes on; empty if that is not known. Comparing with it saves reading (header
	// prediction, as in the kernel's tcp_rcv_established).
	predicted []byte
	grown     int    // which of open that run is
	step      uint16 // by how much its identification grows
}

// run is a super-packet that grows.
type run struct {
	frame     int // its index in frames
	segment   segment
	count     int
	size      int    // payload bytes in each segment but the last
	length    int    // of the IP packet so far
	next      uint32 // TCP: the sequence number that may follow
	lastFlags byte   // TCP: the last segment's flags
	lastID    uint16 // IPv4: the last packet's identification
}

// segment is what joining needs of one packet.
type segment struct {
	bytes     []byte
	transport int // where the transport header starts
	payload   int // where the payload starts
	tcp       bool
	partial   bool // whether its checksum is
}

func (s *segment) payloadLen() int { return len(s.bytes) - s.payload }
func (s *segment) flags() byte     { return s.bytes[s.transport+13] }
func (s *segment) seq() uint32     { return binary.BigEndian.Uint32(s.bytes[s.transport+4:]) }

// id is IPv4's identification. What it says of IPv6 means nothing.
func (s *segment) id() uint16 { return binary.BigEndian.Uint16(s.bytes[4:]) }

// Reset forgets the frames of the last batch.
func (c *Coalescer) Reset() {
	c.frames, c.open, c.predicted = c.frames[:0], c.open[:0], c.predicted[:0]
}

// Continue reports whether b is the very packet with which the flow of the packet
// before it goes on, and then takes it, as Add would. Like Add it keeps b.
func (c *Coalescer) Continue(b []byte) bool {
	n := len(c.predicted)
	if n == 0 || len(b) < n || !bytes.Equal(b[:n], c.predicted) {
		return false
	}
	r := &c.open[c.grown]
	if len(b) != n+r.size || !r.hasRoom(r.size) {
		return false
	}
	c.extend(r, b[n:])
	r.lastID += c.step
	advance(c.predicted, r.segment.transport, r.segment.tcp, c.step, uint32(r.size))
	return true
}

// Add takes the next packet of the batch. Its Virtio says whether its checksum is
// partial. It must stay as it is until the frames were written.
func (c *Coalescer) Add(f Frame) {
	c.predicted = c.predicted[:0]
	s, kind := classify(f.Packet())
	s.partial = f.Virtio.Flags != 0
	if kind == unknown {
		c.closeAll() // it may belong to any of the flows
		c.frames = append(c.frames, f)
		return
	}
	i := c.find(&s)
	joinable := kind == data && (s.tcp && c.TCP || !s.tcp && c.UDP) && (s.partial || verify(&s))
	if i >= 0 {
		if joinable && c.open[i].takes(&s) {
			c.join(i, &s)
			return
		}
		c.close(i) // what follows may not overtake this packet
	}
	c.frames = append(c.frames, f)
	if joinable {
		c.start(&s)
	}
}

type kind int

const (
	unknown kind = iota // neither a whole TCP nor a whole UDP packet
	control             // a packet of a flow that is never joined, such as a pure ACK
	data                // one that may be
)

// classify looks where the headers end, and whether the packet may be joined at all.
func classify(b []byte) (segment, kind) {
	s := segment{bytes: b, transport: headerLen(b)}
	if isFragment(b) || IsIPv4(b) && fold(addSum(0, b[:s.transport])) != 0xffff {
		return s, unknown // a wrong header checksum must not be repaired either
	}
	protocol := transportProtocol(b)
	switch {
	case protocol == protocolTCP && len(b) >= s.transport+tcpHeaderLen:
		s.tcp, s.payload = true, s.transport+int(b[s.transport+12]>>4)*4
		if s.payload < s.transport+tcpHeaderLen || s.payload > len(b) {
			return s, unknown
		}
		const ordinary = tcpFlagACK | tcpFlagECE | tcpFlagFIN | tcpFlagPSH | tcpFlagCWR
		if s.payload == len(b) || s.flags()&tcpFlagACK == 0 || s.flags()&^ordinary != 0 {
			return s, control
		}
		return s, data
	case protocol == protocolUDP && len(b) > s.transport+udpHeaderLen:
		s.payload = s.transport + udpHeaderLen
		u := b[s.transport:]
		if int(binary.BigEndian.Uint16(u[4:])) != len(u) || binary.BigEndian.Uint16(u[6:]) == 0 {
			return s, control
		}
		return s, data
	}
	return s, unknown
}

// find returns the index of the open run of the packet's flow, or −1.
func (c *Coalescer) find(s *segment) int {
	for i := len(c.open) - 1; i >= 0; i-- {
		if sameFlow(&c.open[i].segment, s) {
			return i
		}
	}
	return -1
}

// sameFlow compares what makes a flow, and nothing else: a packet that differs in more
// is not joined, but nor may it be overtaken.
func sameFlow(a, b *segment) bool {
	if a.tcp != b.tcp || a.bytes[0]>>4 != b.bytes[0]>>4 {
		return false
	}
	addresses, end := 12, 20 // in IPv4
	if !IsIPv4(a.bytes) {
		addresses, end = 8, 40
	}
	return bytes.Equal(a.bytes[addresses:end], b.bytes[addresses:end]) &&
		bytes.Equal(a.bytes[a.transport:a.transport+4], b.bytes[b.transport:b.transport+4])
}

func (c *Coalescer) start(s *segment) {
	r := run{frame: len(c.frames) - 1, segment: *s, count: 1, size: s.payloadLen(), length: len(s.bytes)}
	if s.tcp {
		r.next, r.lastFlags = s.seq()+uint32(r.size), s.flags()
		if r.lastFlags&(tcpFlagFIN|tcpFlagPSH) != 0 {
			return // nothing may follow
		}
	}
	if len(c.open) == maxOpen {
		c.close(0)
	}
	c.open = append(c.open, r)
	c.predict(len(c.open)-1, s, 1)
}

// hasRoom reports whether one more packet with n bytes of payload makes the
// super-packet no larger than it may be.
func (r *run) hasRoom(n int) bool {
	return r.length+n <= MaxSize && (r.segment.tcp || r.count < maxDatagrams)
}

// takes reports whether s continues the run, so that cutting the super-packet apart
// again gives the same packets.
func (r *run) takes(s *segment) bool {
	head := r.segment.bytes
	if s.payload != r.segment.payload || s.payloadLen() > r.size || !r.hasRoom(s.payloadLen()) ||
		!sameIPHeader(head, s.bytes, r.segment.transport, r.count) {
		return false
	}
	if !s.tcp {
		return true
	}
	t, u := head[r.segment.transport:r.segment.payload], s.bytes[s.transport:s.payload]
	const mayDiffer = tcpFlagFIN | tcpFlagPSH | tcpFlagCWR
	return s.seq() == r.next && s.flags()&tcpFlagCWR == 0 &&
		bytes.Equal(t[8:13], u[8:13]) && (t[13]^u[13])&^mayDiffer == 0 && // acknowledgement, header length, flags
		bytes.Equal(t[14:16], u[14:16]) && bytes.Equal(t[18:], u[18:]) // window, urgent pointer, options
}

// sameIPHeader compares what segmentation copies from the first packet to all.
func sameIPHeader(a, b []byte, length, count int) bool {
	if !IsIPv4(a) {
		return bytes.Equal(a[:4], b[:4]) && a[7] == b[7] // traffic class, flow label, hop limit
	}
	const dontFragment = 0x40
	if a[6]&dontFragment == 0 && binary.BigEndian.Uint16(b[4:]) != binary.BigEndian.Uint16(a[4:])+uint16(count) {
		return false // the identification counts (RFC 6864)
	}
	return a[0] == b[0] && a[1] == b[1] && a[6] == b[6] && a[8] == b[8] && // header length, TOS, flags, TTL
		bytes.Equal(a[20:length], b[20:length]) // options
}

func (c *Coalescer) join(i int, s *segment) {
	r := &c.open[i]
	c.extend(r, s.bytes[s.payload:])
	ended := s.payloadLen() < r.size
	if s.tcp {
		r.lastFlags = s.flags()
		ended = ended || r.lastFlags&(tcpFlagFIN|tcpFlagPSH) != 0
	}
	if ended {
		c.close(i)
		return
	}
	c.predict(i, s, s.id()-r.lastID)
}

// extend appends the payload of one more packet to a run.
func (c *Coalescer) extend(r *run, payload []byte) {
	for len(c.rests) <= r.frame {
		c.rests = append(c.rests, nil)
	}
	c.rests[r.frame] = append(c.rests[r.frame][:r.count-1], payload)
	r.count++
	r.length += len(payload)
	r.next += uint32(len(payload))
}

// predict expects that the i-th open run, whose last packet is s, goes on with packets
// like s whose identifications grow by step.
func (c *Coalescer) predict(i int, s *segment, step uint16) {
	r := &c.open[i]
	r.lastID = s.id()
	if !s.partial {
		return // the next checksum depends on the payload
	}
	c.grown, c.step = i, step
	c.predicted = append(c.predicted, s.bytes[:s.payload]...)
	advance(c.predicted, s.transport, s.tcp, step, uint32(r.size))
}

// close ends a run.
func (c *Coalescer) close(i int) {
	if r := &c.open[i]; r.count > 1 {
		f := &c.frames[r.frame]
		f.Rest = c.rests[r.frame]
		f.Virtio = r.finish()
	}
	c.open = slices.Delete(c.open, i, i+1)
	c.predicted = c.predicted[:0]
}

func (c *Coalescer) closeAll() {
	for len(c.open) > 0 {
		c.close(len(c.open) - 1)
	}
}

// finish gives the super-packet's headers its length, flags and partial checksum,
// and returns what it leaves to the kernel.
func (r *run) finish() VirtioHeader {
	b, t := r.segment.bytes, r.segment.bytes[r.segment.transport:]
	v := VirtioHeader{
		Flags:     unix.VIRTIO_NET_HDR_F_NEEDS_CSUM,
		HdrLen:    uint16(r.segment.payload),
		GSOSize:   uint16(r.size),
		CsumStart: uint16(r.segment.transport),
	}
	protocol, field, _ := protocolOf(r.segment.tcp)
	v.CsumOffset = uint16(field)
	if r.segment.tcp {
		v.GSOType = unix.VIRTIO_NET_HDR_GSO_TCPV6
		if IsIPv4(b) {
			v.GSOType = unix.VIRTIO_NET_HDR_GSO_TCPV4
		}
		t[13] |= r.lastFlags & (tcpFlagFIN | tcpFlagPSH)
		if t[13]&tcpFlagCWR != 0 {
			v.GSOType |= unix.VIRTIO_NET_HDR_GSO_ECN
		}
	} else {
		v.GSOType = unix.VIRTIO_NET_HDR_GSO_UDP_L4
		binary.BigEndian.PutUint16(t[4:], uint16(r.length-r.segment.transport))
	}
	setLength(b, r.segment.transport, r.length)
	binary.BigEndian.PutUint16(t[field:], fold(pseudoHeader(b, protocol)+uint64(r.length-r.segment.transport)))
	return v
}

// verify reports whether the packet's checksum is correct: joined packets get a new
// one, which must not repair a wrong one.
func verify(s *segment) bool {
	protocol, _, _ := protocolOf(s.tcp)
	t := s.bytes[s.transport:]
	return fold(addSum(pseudoHeader(s.bytes, protocol)+uint64(len(t)), t)) == 0xffff
}

// Frames returns the batch: super-packets and what could not be joined, each where
// its first packet stood. They are valid until Reset.
func (c *Coalescer) Frames() []Frame {
	c.closeAll()
	return c.frames
}
