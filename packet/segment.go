package packet

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	tcpHeaderLen = 20
	udpHeaderLen = 8

	tcpFlagFIN = 0x01
	tcpFlagPSH = 0x08
	tcpFlagACK = 0x10
	tcpFlagECE = 0x40
	tcpFlagCWR = 0x80
)

// MaxHeaders is the most that an IP and a TCP header take, in bytes, unless there are
// extension headers of an unusual length: those of IPv4, both with all options.
const MaxHeaders = 60 + 60

// MaxCut is how many segments a super-packet may have. The kernel makes 64 at the most
// (gso_max_segs of the device); one with more was forged by a pod that may send raw
// packets, for whom each would be cut into up to 65,000 datagrams.
const MaxCut = 1024

// Segments is a super-packet as the segments that it stands for: what the kernel's
// own segmentation would make of it (tcp_gso_segment and __udp_gso_segment). It
// refers to the frame's memory.
type Segments struct {
	// Count is their number, at least 1.
	Count int

	// HeaderLen is the length in bytes of the IP and transport headers.
	HeaderLen int

	headers   []byte // as they are in the packet
	packet    []byte
	size      int // payload bytes in each segment but the last, which may be shorter
	transport int // where the transport header starts
	tcp       bool
	complete  bool   // whether checksums are completed
	pseudo    uint64 // sum of the pseudo header but for the length
}

// Cut returns the segments of the super-packet f, or false if its virtio-net header
// contradicts the packet or asks for too many. With complete, the segments' checksums
// are complete; otherwise they are left partial, as in f, if a peer recognises that
// (PartialChecksum).
func (f *Frame) Cut(complete bool) (Segments, bool) {
	v, b := f.Virtio, f.Packet()
	s := Segments{packet: b, size: int(v.GSOSize), transport: int(v.CsumStart), complete: complete}
	version := byte(4)
	switch v.GSOType &^ unix.VIRTIO_NET_HDR_GSO_ECN {
	case unix.VIRTIO_NET_HDR_GSO_TCPV4:
		s.tcp = true
	case unix.VIRTIO_NET_HDR_GSO_TCPV6:
		s.tcp, version = true, 6
	case unix.VIRTIO_NET_HDR_GSO_UDP_L4:
		version = b[0] >> 4
	default:
		return Segments{}, false
	}
	protocol, offset, least := protocolOf(s.tcp)
	upper, start := upperLayer(b)
	if b[0]>>4 != version || v.Flags&unix.VIRTIO_NET_HDR_F_NEEDS_CSUM == 0 || int(v.CsumOffset) != offset ||
		s.size == 0 || s.transport+least > len(b) ||
		s.transport != start || upper != protocol || isFragment(b) {
		return Segments{}, false
	}
	s.pseudo = pseudoHeader(b, protocol)
	length := len(b) - s.transport
	field := binary.BigEndian.Uint16(b[s.transport+offset:])
	if start != headerLen(b) || field != fold(s.pseudo+uint64(length)) {
		// A peer would not recognise the partial checksum. What it counts for is in the
		// packet: behind a routing header, for one, the last destination (RFC 8200 §8.1).
		s.complete = true
		s.pseudo = uint64(field) + uint64(^uint16(length)) // the difference (RFC 1071 §2)
	}
	s.HeaderLen = s.transport + udpHeaderLen
	if s.tcp {
		s.HeaderLen = s.transport + int(b[s.transport+12]>>4)*4
	}
	if s.HeaderLen < s.transport+least || s.HeaderLen >= len(b) {
		return Segments{}, false
	}
	s.headers = b[:s.HeaderLen]
	s.Count = (len(b) - s.HeaderLen + s.size - 1) / s.size
	return s, s.Count <= MaxCut
}

// Payload returns the payload of segment i, in place.
func (s *Segments) Payload(i int) []byte {
	start := s.HeaderLen + i*s.size
	return s.packet[start:min(start+s.size, len(s.packet))]
}

// KeepHeaders copies the packet's headers to scratch, of MaxHeaders bytes, so that what
// InPlace returns may be written to. It allocates where they are longer.
func (s *Segments) KeepHeaders(scratch []byte) {
	s.headers = append(scratch[:0], s.headers...)
}

// InPlace returns the payload of segment i, and the bytes before it that its headers may
// be written to: they belong to the segment before.
func (s *Segments) InPlace(i int) []byte {
	start := i * s.size
	return s.packet[start:min(start+s.HeaderLen+s.size, len(s.packet))]
}

// Len returns the length in bytes of all segments.
func (s *Segments) Len() int { return len(s.packet) + (s.Count-1)*s.HeaderLen }

// Header writes the headers of segment i to b, which has HeaderLen bytes.
func (s *Segments) Header(b []byte, i int) {
	payload := s.Payload(i)
	copy(b, s.headers)
	total := s.HeaderLen + len(payload)
	if IsIPv4(b) {
		binary.BigEndian.PutUint16(b[4:], binary.BigEndian.Uint16(b[4:])+uint16(i)) // RFC 6864: unique for a source
	}
	setLength(b, s.transport, total)
	t := b[s.transport:]
	_, field, _ := protocolOf(s.tcp)
	if s.tcp {
		s.tcpHeader(t, i)
	} else {
		binary.BigEndian.PutUint16(t[4:], uint16(total-s.transport))
	}
	sum := s.pseudo + uint64(total-s.transport)
	if !s.complete {
		binary.BigEndian.PutUint16(t[field:], fold(sum))
		return
	}
	t[field], t[field+1] = 0, 0
	sum = addSum(addSum(sum, t), payload) // t is of even length, as both headers are
	binary.BigEndian.PutUint16(t[field:], checksum(sum, s.tcp))
}

// Next makes the headers of segment i, which is not the first, of those of the segment
// before it, which b holds.
func (s *Segments) Next(b []byte, i int) {
	if s.complete || i == 1 || i == s.Count-1 { // the checksum, the flags or the length differ
		s.Header(b, i)
		return
	}
	advance(b, s.transport, s.tcp, 1, uint32(s.size))
}

// advance makes of a segment's headers, whose checksum is partial, those of a segment
// like it: id further by IPv4's identification, seq further by TCP's sequence number.
func advance(b []byte, transport int, tcp bool, id uint16, seq uint32) {
	if IsIPv4(b) {
		old := binary.BigEndian.Uint16(b[4:])
		binary.BigEndian.PutUint16(b[4:], old+id)
		updateChecksum(b, old, old+id)
	}
	if tcp {
		binary.BigEndian.PutUint32(b[transport+4:], binary.BigEndian.Uint32(b[transport+4:])+seq)
	}
}

// tcpHeader gives segment i its sequence number and flags: FIN and PSH belong to the
// last byte, CWR to the first segment (RFC 3168 §6.1.2).
func (s *Segments) tcpHeader(t []byte, i int) {
	binary.BigEndian.PutUint32(t[4:], binary.BigEndian.Uint32(t[4:])+uint32(i*s.size))
	if i > 0 {
		t[13] &^= tcpFlagCWR
	}
	if i < s.Count-1 {
		t[13] &^= tcpFlagFIN | tcpFlagPSH
	}
}
