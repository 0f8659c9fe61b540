package packet

import (
	"encoding/binary"
	"math/bits"

	"golang.org/x/sys/unix"
)

const (
	protocolTCP  = 6
	protocolUDP  = 17
	protocolSCTP = 132

	tcpChecksum = 16 // where the checksum stands in the header
	udpChecksum = 6
)

// protocolOf returns what TCP and UDP differ in: their numbers, where the checksum
// stands in the header, and the length of the shortest header.
func protocolOf(tcp bool) (number byte, checksum, least int) {
	if tcp {
		return protocolTCP, tcpChecksum, tcpHeaderLen
	}
	return protocolUDP, udpChecksum, udpHeaderLen
}

// PartialChecksum says of a packet, which Parse accepted, whether its TCP or UDP
// checksum is still to be completed, and if so, how.
//
// A kernel that leaves the checksum to its card puts the sum of the pseudo header
// there (CHECKSUM_PARTIAL in include/linux/skbuff.h). If there is no card, as on a
// veth pair or between virtual machines of one host, the packet arrives like that.
// A correct checksum may equal the pseudo header's sum. That loses nothing: completing it
// gives the same checksum again.
func PartialChecksum(b []byte) (VirtioHeader, bool) {
	protocol, start := transportProtocol(b), headerLen(b)
	if isFragment(b) || protocol != protocolTCP && protocol != protocolUDP {
		return VirtioHeader{}, false
	}
	_, offset, least := protocolOf(protocol == protocolTCP)
	segment := b[start:]
	if len(segment) < least {
		return VirtioHeader{}, false
	}
	sum := pseudoHeader(b, protocol) + uint64(len(segment))
	if field := binary.BigEndian.Uint16(segment[offset:]); field != fold(sum) || field == 0 { // 0: UDP without one
		return VirtioHeader{}, false
	}
	return VirtioHeader{
		Flags:      unix.VIRTIO_NET_HDR_F_NEEDS_CSUM,
		CsumStart:  uint16(start),
		CsumOffset: uint16(offset),
	}, true
}

// Finish leaves nothing to do of a packet but what a peer recognises by PartialChecksum,
// and reports whether it could: the checksum of an inner header, as the packet of a
// tunnel that ends in a pod has it, it completes. Segmenting a super-packet it can't.
func (f *Frame) Finish() bool {
	if v := f.Virtio; v.Flags == unix.VIRTIO_NET_HDR_F_NEEDS_CSUM && v.GSOType == unix.VIRTIO_NET_HDR_GSO_NONE {
		recognised, ok := PartialChecksum(f.Packet())
		if ok && v.CsumStart == recognised.CsumStart && v.CsumOffset == recognised.CsumOffset {
			return true
		}
	}
	return f.Complete()
}

// Complete does what is left to do, and reports whether it could. Segmenting a
// super-packet it can't.
func (f *Frame) Complete() bool {
	v, b := f.Virtio, f.Packet()
	if v.GSOType != unix.VIRTIO_NET_HDR_GSO_NONE {
		return false
	}
	switch v.Flags {
	case 0:
		return v == (VirtioHeader{})
	case unix.VIRTIO_NET_HDR_F_DATA_VALID: // the kernel has found the checksum correct
		f.Virtio = VirtioHeader{}
		return true
	case unix.VIRTIO_NET_HDR_F_NEEDS_CSUM:
	default:
		return false
	}
	start, field := int(v.CsumStart), int(v.CsumStart)+int(v.CsumOffset)
	protocol, upper := upperLayer(b)
	if start < headerLen(b) || field+2 > len(b) ||
		protocol == protocolSCTP && start == upper { // SCTP has a CRC-32C there (RFC 9260 §6.8)
		return false
	}
	sum := addSum(0, b[start:]) // the field holds the pseudo header's sum
	binary.BigEndian.PutUint16(b[field:], checksum(sum, f.Virtio.CsumOffset != udpChecksum))
	f.Virtio = VirtioHeader{}
	return true
}

// pseudoHeader sums the pseudo header of the packet b but for the length (RFC 9293
// §3.1, RFC 8200 §8.1).
func pseudoHeader(b []byte, protocol byte) uint64 {
	if IsIPv4(b) {
		return addSum(uint64(protocol), b[12:20])
	}
	return addSum(uint64(protocol), b[8:40])
}

// setLength gives an IP header of headerLen bytes the packet's length, and IPv4's its
// checksum.
func setLength(b []byte, headerLen, length int) {
	if !IsIPv4(b) {
		binary.BigEndian.PutUint16(b[4:], uint16(length-ipv6HeaderLen))
		return
	}
	binary.BigEndian.PutUint16(b[2:], uint16(length))
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ^fold(addSum(0, b[:headerLen])))
}

// updateChecksum gives the IPv4 header b the checksum that follows when one of its
// fields, of 16 bits, changes (RFC 1624 §3). A wrong checksum stays wrong.
func updateChecksum(b []byte, before, after uint16) {
	sum := uint64(^binary.BigEndian.Uint16(b[10:])) + uint64(^before) + uint64(after)
	binary.BigEndian.PutUint16(b[10:], ^fold(sum))
}

// checksum returns the checksum of TCP or UDP for a sum.
func checksum(sum uint64, tcp bool) uint16 {
	c := ^fold(sum)
	if c == 0 && !tcp {
		return 0xffff // the same number, and 0 means none (RFC 768)
	}
	return c
}

// addSum adds b to a ones' complement sum (RFC 1071), eight bytes at a time.
func addSum(sum uint64, b []byte) uint64 {
	var carry uint64
	for ; len(b) >= 8; b = b[8:] {
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), 0)
		sum += carry
	}
	for ; len(b) >= 2; b = b[2:] {
		sum, carry = bits.Add64(sum, uint64(binary.BigEndian.Uint16(b)), 0)
		sum += carry
	}
	if len(b) == 1 {
		sum, carry = bits.Add64(sum, uint64(b[0])<<8, 0)
		sum += carry
	}
	return sum
}

// fold brings a sum to 16 bits.
func fold(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
