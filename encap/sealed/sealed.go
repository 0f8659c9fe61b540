// Package sealed is weft's own encapsulation: every datagram is encrypted and
// authenticated with AES-256-GCM (docs/WIRE.md). Here are the data keys and what the
// lanes do with them. Package handshake agrees on them with the other nodes.
//
// Nothing is shared between lanes: each has a key, a counter and a replay window of
// its own in each direction with each peer. Nothing is ever sent in clear.
package sealed

import (
	"encoding/binary"

	"weft/encap"
)

const (
	// HeaderLen and TagLen are what stands before a packet and behind it.
	HeaderLen = 16
	TagLen    = 16

	// typeData is the first byte of a datagram with a packet. That of QUIC's is at least
	// quicBit (RFC 9000 §17.2, §17.3.1).
	typeData = 0x01
	quicBit  = 0x40
)

// An index names a session of the receiver, and in its last bits the sender's lane. So
// the receiver's kernel can see which lane's key a datagram is for.
const (
	laneBits = 5

	// maxLanes is the number of lanes that an index can name.
	maxLanes = 1 << laneBits

	// MaxSession is the largest number of a session.
	MaxSession = 1<<(32-laneBits) - 1

	// MaxLanes is the largest number of lanes of a node.
	MaxLanes = controlLane

	// controlLane sends what waited for keys: no lane of the data path is free to.
	controlLane = maxLanes - 1
)

// Overhead is by how many bytes the packet on the underlay is longer than the
// pod's: header, tag, UDP, and the outer IP header.
func Overhead(ipv6Underlay bool) int {
	const udpLen = 8
	if ipv6Underlay {
		return HeaderLen + TagLen + udpLen + 40
	}
	return HeaderLen + TagLen + udpLen + 20
}

// SpreadBy is where a datagram says which lane sent it: a receiver with n lanes has the
// datagrams of lane i in its lane i%n, whatever the underlay does to ports.
func SpreadBy() encap.Spread {
	return encap.Spread{Offset: 7, Mask: maxLanes - 1}
}

// isMessage says whether what was sealed is a message between nodes, and not a packet, of which the
// first four bits are IP's version.
func isMessage(plain []byte) bool { return len(plain) > 0 && plain[0]>>4 == 0 }

// header is what stands before a sealed packet. All of it is authenticated.
type header struct {
	index   uint32
	counter uint64
}

func (h header) put(b []byte) {
	binary.BigEndian.PutUint32(b[0:], typeData<<24)
	binary.BigEndian.PutUint32(b[4:], h.index)
	binary.BigEndian.PutUint64(b[8:], h.counter)
}

// parseHeader returns false if b, which has HeaderLen bytes at least, does not start
// with a header.
func parseHeader(b []byte) (header, bool) {
	return header{index: binary.BigEndian.Uint32(b[4:]), counter: binary.BigEndian.Uint64(b[8:])},
		binary.BigEndian.Uint32(b[0:]) == typeData<<24
}
