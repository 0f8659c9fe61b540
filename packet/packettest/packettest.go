// Package packettest makes packets for tests.
package packettest

import (
	"encoding/binary"
	"net/netip"

	"weft/packet"
)

// UDP returns a complete UDP packet of IPv4 or IPv6, by the family of from, with a
// payload of n bytes and correct checksums.
func UDP(from, to netip.Addr, n int) []byte {
	const udpLen = 8
	headerLen := 40
	if from.Is4() {
		headerLen = 20
	}
	b := make([]byte, headerLen+udpLen+n)
	datagram := b[headerLen:]
	if from.Is4() {
		b[0], b[6], b[8], b[9] = 0x45, 0x40, 64, 17 // not to be fragmented
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		copy(b[12:], from.AsSlice())
		copy(b[16:], to.AsSlice())
		binary.BigEndian.PutUint16(b[10:], ^sum(b[:headerLen], 0))
	} else {
		b[0], b[6], b[7] = 0x60, 17, 64
		binary.BigEndian.PutUint16(b[4:], uint16(len(datagram)))
		copy(b[8:], from.AsSlice())
		copy(b[24:], to.AsSlice())
	}
	binary.BigEndian.PutUint16(datagram[0:], 4000)
	binary.BigEndian.PutUint16(datagram[2:], 5000)
	binary.BigEndian.PutUint16(datagram[4:], uint16(len(datagram)))
	for i := range datagram[udpLen:] {
		datagram[udpLen+i] = byte(i)
	}
	pseudo := uint32(17) + uint32(len(datagram)) + uint32(sum(from.AsSlice(), 0)) + uint32(sum(to.AsSlice(), 0))
	binary.BigEndian.PutUint16(datagram[6:], ^sum(datagram, pseudo))
	return b
}

// sum is the ones' complement sum of RFC 1071.
func sum(b []byte, s uint32) uint16 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// Count returns how many packets frames stand for.
func Count(frames []packet.Frame) (n int) {
	for i := range frames {
		n += frames[i].Packets()
	}
	return n
}
