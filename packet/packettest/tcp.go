package packettest

import (
	"encoding/binary"
	"net/netip"

	"weft/packet"
)

// TCP describes a TCP packet.
type TCP struct {
	From, To     netip.AddrPort
	Seq, Ack     uint32
	Flags        byte
	Window       uint16
	Options      []byte // padded by the caller to a multiple of 4
	TOS, TTL     byte
	ID           uint16 // IPv4
	DontFragment bool   // IPv4
	Extensions   []byte // IPv6: the types of extension headers, each of which has 8 bytes of padding
	Payload      []byte
}

// TCP flags.
const (
	FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80
)

// Bytes returns the packet with correct checksums.
func (p TCP) Bytes() []byte {
	b, transport := p.headers()
	b = append(b, p.Payload...)
	t := b[transport:]
	binary.BigEndian.PutUint16(t[16:], ^sum(t, p.pseudo(len(t))))
	return b
}

// Super returns a frame as the kernel hands over a super-packet with segments of
// size bytes of payload, its checksum partial.
func (p TCP) Super(size int) packet.Frame {
	b, transport := p.headers()
	headerLen := len(b)
	b = append(b, p.Payload...)
	pseudo := p.pseudo(len(b) - transport)
	binary.BigEndian.PutUint16(b[transport+16:], sum(nil, pseudo))
	f := packet.NewFrames(1, packet.MaxSize)[0]
	f.Fill(copy(f.Reset(), b))
	f.Virtio = packet.VirtioHeader{Flags: 1, GSOType: 1, HdrLen: uint16(headerLen), GSOSize: uint16(size),
		CsumStart: uint16(transport), CsumOffset: 16}
	if p.From.Addr().Is6() {
		f.Virtio.GSOType = 4
	}
	if p.Flags&CWR != 0 {
		f.Virtio.GSOType |= 0x80
	}
	return f
}

// headers returns the headers but for the TCP checksum, and where TCP's starts.
func (p TCP) headers() ([]byte, int) {
	transport := 40 + 8*len(p.Extensions)
	if p.From.Addr().Is4() {
		transport = 20
	}
	b := make([]byte, transport+20+len(p.Options))
	total := len(b) + len(p.Payload)
	if p.From.Addr().Is4() {
		b[0], b[1], b[8], b[9] = 0x45, p.TOS, p.TTL, 6
		binary.BigEndian.PutUint16(b[2:], uint16(total))
		binary.BigEndian.PutUint16(b[4:], p.ID)
		if p.DontFragment {
			b[6] = 0x40
		}
		copy(b[12:], p.From.Addr().AsSlice())
		copy(b[16:], p.To.Addr().AsSlice())
		binary.BigEndian.PutUint16(b[10:], ^sum(b[:20], 0))
	} else {
		b[0], b[1], b[6], b[7] = 0x60|p.TOS>>4, p.TOS<<4, 6, p.TTL
		binary.BigEndian.PutUint16(b[4:], uint16(total-40))
		copy(b[8:], p.From.Addr().AsSlice())
		copy(b[24:], p.To.Addr().AsSlice())
		next := &b[6]
		for i, kind := range p.Extensions {
			e := b[40+8*i:]
			copy(e, []byte{6, 0, 1, 4}) // PadN of 6 bytes in all (RFC 8200 §4.2)
			*next, next = kind, &e[0]
		}
	}
	t := b[transport:]
	binary.BigEndian.PutUint16(t[0:], p.From.Port())
	binary.BigEndian.PutUint16(t[2:], p.To.Port())
	binary.BigEndian.PutUint32(t[4:], p.Seq)
	binary.BigEndian.PutUint32(t[8:], p.Ack)
	t[12], t[13] = byte(5+len(p.Options)/4)<<4, p.Flags
	binary.BigEndian.PutUint16(t[14:], p.Window)
	copy(t[20:], p.Options)
	return b, transport
}

func (p TCP) pseudo(length int) uint32 {
	return 6 + uint32(length) + uint32(sum(p.From.Addr().AsSlice(), 0)) + uint32(sum(p.To.Addr().AsSlice(), 0))
}
