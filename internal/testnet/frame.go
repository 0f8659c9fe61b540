package testnet

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"weft/encap/sealed"
)

// EthernetLen is the length in bytes of the header before the packet in a frame.
const EthernetLen = 14

const ipv4Len, ipv6Len = 20, 40

// Datagram returns the payload of a UDP datagram over IPv4 in an Ethernet frame, and who
// sent it.
func Datagram(frame []byte) (payload []byte, from netip.Addr, ok bool) {
	const udpLen = 8
	if len(frame) < EthernetLen+ipv4Len+udpLen || etherType(frame) != unix.ETH_P_IP {
		return nil, netip.Addr{}, false
	}
	ip := frame[EthernetLen:]
	from = netip.AddrFrom4([4]byte(ip[12:16]))
	ip = ip[:min(len(ip), int(binary.BigEndian.Uint16(ip[2:])))] // Ethernet pads short frames
	start := int(frame[EthernetLen]&0x0f)*4 + udpLen
	if frame[EthernetLen+9] != unix.IPPROTO_UDP || len(ip) < start {
		return nil, netip.Addr{}, false
	}
	return ip[start:], from, true
}

// Hosts returns who sent the packet in an Ethernet frame, and to whom.
func Hosts(frame []byte) (from, to netip.Addr, ok bool) {
	if len(frame) < EthernetLen {
		return netip.Addr{}, netip.Addr{}, false
	}
	switch packet := frame[EthernetLen:]; {
	case etherType(frame) == unix.ETH_P_IP && len(packet) >= ipv4Len:
		return netip.AddrFrom4([4]byte(packet[12:16])), netip.AddrFrom4([4]byte(packet[16:20])), true
	case etherType(frame) == unix.ETH_P_IPV6 && len(packet) >= ipv6Len:
		return netip.AddrFrom16([16]byte(packet[8:24])), netip.AddrFrom16([16]byte(packet[24:40])), true
	}
	return netip.Addr{}, netip.Addr{}, false
}

// IsQUIC and IsSealed tell by the first byte what nodes send each other (docs/WIRE.md).
func IsQUIC(payload []byte) bool { return len(payload) > 20 && payload[0] >= 0x40 }

// IsSealed reports whether a payload can be sealed: a packet or a probe, which is shorter than
// any packet.
func IsSealed(payload []byte) bool {
	return len(payload) >= sealed.HeaderLen+sealed.TagLen && bytes.HasPrefix(payload, []byte{1, 0, 0, 0})
}

// IsNeighbourDiscovery reports whether hosts of a segment find each other by the frame:
// ARP, and ICMPv6, which multicast listeners send behind hop-by-hop options (RFC 3810).
func IsNeighbourDiscovery(frame []byte) bool {
	switch {
	case len(frame) < EthernetLen:
		return false
	case etherType(frame) == unix.ETH_P_ARP:
		return true
	case etherType(frame) != unix.ETH_P_IPV6 || len(frame) <= EthernetLen+ipv6Len:
		return false
	}
	next := frame[EthernetLen+6]
	if next == unix.IPPROTO_HOPOPTS {
		next = frame[EthernetLen+ipv6Len]
	}
	return next == unix.IPPROTO_ICMPV6
}

func etherType(frame []byte) uint16 { return binary.BigEndian.Uint16(frame[12:]) }
