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

// IsIPv4 reports whether b, which Parse accepted, is an IPv4 packet.
func IsIPv4(b []byte) bool { return b[0]>>4 == 4 }
