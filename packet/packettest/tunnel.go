package packettest

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"weft/packet"
)

// tunnels are what pods may put between an outer IP header and an inner packet.
var tunnels = map[string]struct {
	protocol byte
	header   []byte
}{
	"VXLAN":   {17, append([]byte{0xc0, 0, 0x12, 0xb5, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 9, 0}, ethernet...)},
	"Geneve":  {17, append([]byte{0xc0, 0, 0x17, 0xc1, 0, 0, 0, 0, 0, 0, 0x65, 0x58, 0, 0, 9, 0}, ethernet...)},
	"FOU":     {17, []byte{0xc0, 0, 0x15, 0xb3, 0, 0, 0, 0}},
	"IP":      {4, nil},
	"IPv6":    {41, nil},
	"GRE":     {47, []byte{0, 0, 8, 0}},
	"unknown": {253, make([]byte, 6)},
}

var ethernet = []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0}

// Tunnels returns the kinds that Tunnel knows.
func Tunnels() []string { return slices.Sorted(maps.Keys(tunnels)) }

// Tunnel returns a packet from a tunnel that ends in a pod, in two forms: as a kernel hands
// it over, the inner checksum partial, and the outer UDP checksum already what is right
// once the inner one is complete (Documentation/networking/checksum-offloads.rst, LCO); and
// as a card sends it.
func Tunnel(kind string, from, to netip.Addr, inner TCP) (packet.Frame, []byte) {
	t := tunnels[kind]
	super := inner.Super(packet.MaxSize)
	left, complete := outer(t.protocol, t.header, from, to, super.Packet()), inner.Bytes()
	card := outer(t.protocol, t.header, from, to, complete)
	start := len(card) - len(complete)
	if transport := start - len(t.header); t.protocol == 17 {
		pseudo := 17 + uint32(len(card)-transport) + uint32(sum(from.AsSlice(), 0)) + uint32(sum(to.AsSlice(), 0))
		check := ^sum(card[transport:], pseudo)
		binary.BigEndian.PutUint16(card[transport+6:], check)
		binary.BigEndian.PutUint16(left[transport+6:], check)
	}
	f := packet.NewFrames(1, packet.MaxSize)[0]
	f.Fill(copy(f.Reset(), left))
	f.Virtio = packet.VirtioHeader{Flags: 1, CsumStart: uint16(start) + super.Virtio.CsumStart, CsumOffset: super.Virtio.CsumOffset}
	return f, card
}

// outer puts an IP header and a tunnel's before a packet.
func outer(protocol byte, header []byte, from, to netip.Addr, inner []byte) []byte {
	b := UDP(from, to, 0)
	transport := len(b) - 8
	b = append(append(b[:transport], header...), inner...)
	if from.Is4() {
		b[9] = protocol
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], ^sum(b[:transport], 0))
	} else {
		b[6] = protocol
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-transport))
	}
	if protocol == 17 {
		binary.BigEndian.PutUint16(b[transport+4:], uint16(len(b)-transport))
	}
	return b
}
