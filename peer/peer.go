// Package peer says what a node is to the others: its name, addresses and key. It knows no
// sockets, so that a planner can use it.
package peer

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// MAC is an Ethernet address. VXLAN carries one for each end of the overlay link.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MarshalText implements encoding.TextMarshaler.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *MAC) UnmarshalText(text []byte) error {
	mac, err := ParseMAC(string(text))
	if err == nil {
		*m = mac
	}
	return err
}

// ParseMAC reads an Ethernet address, which is not all zeros.
func ParseMAC(text string) (MAC, error) {
	hw, err := net.ParseMAC(text)
	if err != nil || len(hw) != len(MAC{}) || MAC(hw) == (MAC{}) {
		return MAC{}, errors.New("this is not an Ethernet address like 02:00:00:00:00:01")
	}
	return MAC(hw), nil
}

// DeriveMAC returns the locally administered unicast address that the named node
// uses when none is configured: the same on every node, without any agreement.
func DeriveMAC(node string) MAC {
	sum := sha256.Sum256([]byte(node))
	return MAC{0x02, sum[0], sum[1], sum[2], sum[3], sum[4]}
}

// Fingerprint names a node's public key: its SHA-256.
type Fingerprint [sha256.Size]byte

func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// MarshalText implements encoding.TextMarshaler.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *Fingerprint) UnmarshalText(text []byte) error {
	fingerprint, err := ParseFingerprint(string(text))
	if err == nil {
		*f = fingerprint
	}
	return err
}

// ParseFingerprint reads what String writes of a key: not all zeros.
func ParseFingerprint(text string) (Fingerprint, error) {
	var f, none Fingerprint
	if len(text) != hex.EncodedLen(len(f)) {
		return none, fmt.Errorf("a fingerprint has %d hexadecimal digits", hex.EncodedLen(len(f)))
	}
	if _, err := hex.Decode(f[:], []byte(text)); err != nil || f == none {
		return none, errors.New("these are not hexadecimal digits, or all zeros")
	}
	return f, nil
}

// Peer is another node, as this node forwards to it; the node itself is described
// by one too. A Peer never changes once it was handed to the data path.
type Peer struct {
	// Name is the node's name, unique in the cluster.
	Name string

	// Endpoint is where the node receives datagrams. Never an IPv4-mapped address.
	Endpoint netip.AddrPort

	// Listed is where the list of nodes says that the node is, if that is not Endpoint: a
	// peer that roams may come back. Not valid otherwise.
	Listed netip.AddrPort

	// VTEPMAC is the node's address on the overlay link (VXLAN only).
	VTEPMAC MAC

	// Key is the fingerprint of the node's key (sealed only).
	Key Fingerprint

	// Kernel says that the node is a kernel VXLAN device, which wants every checksum
	// complete. Between weft nodes TCP's and UDP's may stay partial.
	Kernel bool

	// Prefixes are what lies behind the node: its pod CIDRs, its endpoint's address, and
	// those of Claimed that are proven. Only packets from these are accepted from it, and
	// only packets to these go there.
	Prefixes []netip.Prefix

	// Claimed are further addresses that the node says it has. One is proven when the node
	// has shown its key there (sealed only).
	Claimed []netip.Addr
}
