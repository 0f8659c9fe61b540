package packet

import (
	"encoding/binary"
	"net/netip"
)

const (
	ipv4HeaderLen = 20
	ipv6HeaderLen = 40
)

// Header is what forwarding reads of an IP header.
type Header struct {
	Source, Destination netip.Addr

	// Len is the packet's length in bytes as the header states it: at most the
	// number of bytes that were parsed.
	Len int
}

// Parse reads the IP header at the start of b (RFC 791 §3.1, RFC 8200 §3). It
// reports false if the header contradicts itself or says more than b holds. It
// does not look behind the fixed header: options, extension headers and fragments
// are for the kernels at both ends.
func Parse(b []byte) (Header, bool) {
	if len(b) < ipv4HeaderLen {
		return Header{}, false
	}
	switch b[0] >> 4 {
	case 4:
		headerLen := int(b[0]&0x0f) * 4
		total := int(binary.BigEndian.Uint16(b[2:]))
		if headerLen < ipv4HeaderLen || total < headerLen || total > len(b) {
			return Header{}, false
		}
		return Header{
			Source:      netip.AddrFrom4([4]byte(b[12:16])),
			Destination: netip.AddrFrom4([4]byte(b[16:20])),
			Len:         total,
		}, true
	case 6:
		if len(b) < ipv6HeaderLen {
			return Header{}, false
		}
		total := ipv6HeaderLen + int(binary.BigEndian.Uint16(b[4:]))
		if total > len(b) {
			return Header{}, false
		}
		return Header{
			Source:      netip.AddrFrom16([16]byte(b[8:24])),
			Destination: netip.AddrFrom16([16]byte(b[24:40])),
			Len:         total,
		}, true
	}
	return Header{}, false
}

// headerLen returns the length in bytes of the IP header of the packet b, which Parse
// accepted.
func headerLen(b []byte) int {
	if IsIPv4(b) {
		return int(b[0]&0x0f) * 4
	}
	return ipv6HeaderLen
}

// transportProtocol returns what the IP header of b says that follows: in IPv6, that may
// be an extension header.
func transportProtocol(b []byte) byte {
	if IsIPv4(b) {
		return b[9]
	}
	return b[6]
}

// The extension headers that the kernel cuts super-packets behind (inet6_offloads with
// INET6_PROTO_GSO_EXTHDR): each segment carries them as they are (RFC 8200 §4).
const (
	protocolHopByHop    = 0
	protocolRouting     = 43
	protocolDestOptions = 60

	extensionLen = 8 // of the shortest, and the unit of what is longer
)

// upperLayer returns the protocol of what follows the IP header and such extension
// headers, and where that starts, which may be behind the end of b.
func upperLayer(b []byte) (protocol byte, start int) {
	protocol, start = transportProtocol(b), headerLen(b)
	if IsIPv4(b) {
		return protocol, start
	}
	for protocol == protocolHopByHop || protocol == protocolRouting || protocol == protocolDestOptions {
		if start+extensionLen > len(b) {
			return protocol, len(b)
		}
		protocol, start = b[start], start+extensionLen*(1+int(b[start+1]))
	}
	return protocol, start
}

// isFragment reports whether b is a fragment of an IPv4 packet: more are to come, or it
// has an offset.
func isFragment(b []byte) bool {
	return IsIPv4(b) && binary.BigEndian.Uint16(b[6:])&0x3fff != 0
}

// TrafficClass returns the eight bits of the packet b, which Parse accepted, that are
// called TOS in IPv4 and traffic class in IPv6: DSCP (RFC 2474) and ECN (RFC 3168).
func TrafficClass(b []byte) uint8 {
	if IsIPv4(b) {
		return b[1]
	}
	return b[0]<<4 | b[1]>>4
}

// The values of the ECN field (RFC 3168 §5).
const (
	ecnNotCapable = 0
	ecnCapable1   = 1
	ecnCapable0   = 2
	ecnCongestion = 3
	ecnMask       = 3
)

// MergeECN gives the packet b, which need not be parsed yet, the mark that the underlay
// left in the traffic class of the outer header. It reports false of a packet that must
// be dropped: congestion was experienced, and its flow does not support ECN (RFC 6040 §4.2).
func MergeECN(b []byte, outer uint8) bool {
	outer &= ecnMask
	if outer != ecnCongestion && outer != ecnCapable1 || len(b) < ipv4HeaderLen {
		return true
	}
	inner := TrafficClass(b) & ecnMask
	switch {
	case inner == ecnNotCapable:
		return outer != ecnCongestion
	case inner == ecnCongestion || inner == outer || inner == ecnCapable1 && outer != ecnCongestion:
		return true
	}
	if IsIPv4(b) {
		old := binary.BigEndian.Uint16(b)
		b[1] = b[1]&^ecnMask | outer
		updateChecksum(b, old, binary.BigEndian.Uint16(b))
		return true
	}
	b[1] = b[1]&^(ecnMask<<4) | outer<<4
	return true
}

// IsIPv4 reports whether b, which Parse accepted, is an IPv4 packet.
func IsIPv4(b []byte) bool { return b[0]>>4 == 4 }
