package encap

import (
	"crypto/sha256"
	"net"
	"net/netip"
)

// MAC is an Ethernet address. VXLAN carries one for each end of the overlay link.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// DeriveMAC returns the locally administered unicast address that the named node
// uses when none is configured: the same on every node, without any agreement.
func DeriveMAC(node string) MAC {
	sum := sha256.Sum256([]byte(node))
	return MAC{0x02, sum[0], sum[1], sum[2], sum[3], sum[4]}
}

// Peer is another node, as this node forwards to it; the node itself is described
// by one too. A Peer never changes once it was handed to the data path.
type Peer struct {
	// Name is the node's name, unique in the cluster.
	Name string

	// Endpoint is where the node receives datagrams. Never an IPv4-mapped address.
	Endpoint netip.AddrPort

	// VTEPMAC is the node's address on the overlay link (VXLAN only).
	VTEPMAC MAC

	// Kernel says that the node is a kernel VXLAN device, which wants every checksum
	// complete. Between weft nodes TCP's and UDP's may stay partial.
	Kernel bool

	// Prefixes are what lies behind the node: its pod CIDRs and its node address.
	// Only packets from these are accepted from it, and only packets to these go there.
	Prefixes []netip.Prefix
}
