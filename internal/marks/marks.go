// Package marks holds the names and numbers under which weft's own objects are
// found again in the kernel. Whatever carries one of them is weft's to change or
// to remove; whatever does not is never touched.
package marks

import (
	"fmt"
	"math/bits"
)

const (
	// RouteProtocol marks the routes and rules that weftd installs (rtnetlink(7),
	// rtm_protocol). weftd sweeps what carries it and is no longer wanted.
	RouteProtocol = 93

	// PodRouteProtocol marks the routes to local pods, which weft-cni installs and
	// which outlive weftd.
	PodRouteProtocol = 94

	// PodLinkGroup is the link group of the host side of every pod's veth
	// (IFLA_GROUP). The guard table recognises pods by it.
	PodLinkGroup = 93

	// RouteTable holds the routes to the peers' node addresses, which only pods use.
	RouteTable = 9338

	// RulePriority is the priority of the first of weft's routing rules, which follow each
	// other up to LastRulePriority. They come behind the local table (0) and before those that VPNs and clouds
	// add, of which Tailscale's come first (5210).
	RulePriority     = 5180
	LastRulePriority = RulePriority + 2

	// Table is the name of the nftables tables (of the families inet and bridge), and
	// NextTable that of the one that stands in for the former while it is replaced.
	Table     = "weft"
	NextTable = "weft-next"
)

// Mask is the two bits of the packets' mark (SO_MARK in socket(7), "meta mark" in nft(8))
// that are weft's: the lower one alone is FromOverlay, the higher one alone OwnDatagram, and
// both are Bridged. weft neither reads nor changes the other bits, which belong to other
// programs.
type Mask uint32

// DefaultMask is bits 28 and 29.
const DefaultMask Mask = 0x30000000

// FromOverlay is the bit of packets that came out of the TUN device. The guard table sets
// it, and a routing rule has the kernel look up the way back in RouteTable.
func (m Mask) FromOverlay() uint32 { return uint32(m & -m) }

// OwnDatagram is the bit of what weftd sends to other nodes. Only processes with
// CAP_NET_ADMIN or CAP_NET_RAW can set it (sock_setsockopt in the kernel's net/core/sock.c).
func (m Mask) OwnDatagram() uint32 { return uint32(m) &^ m.FromOverlay() }

// Bridged is the mark of a frame that a bridge has for another host. The bridge table sets
// it, and takes it from what the bridge hands to this node.
func (m Mask) Bridged() uint32 { return uint32(m) }

// othersMarks are the bits that programs use which are common on Kubernetes nodes.
var othersMarks = []struct {
	bits  uint32
	owner string
}{
	{0xc000, "kube-proxy"}, // --iptables-masquerade-bit, and KUBE-MARK-DROP
	{0x2000, "the CNI plugin portmap"},
	{0xff0000, "Tailscale"},
}

// Check returns an error unless m is two bits that no other program is known to use.
func (m Mask) Check() error {
	if bits.OnesCount32(uint32(m)) != 2 {
		return fmt.Errorf("%#x does not have exactly two bits set; write two that no other program uses, such as %#x", uint32(m), uint32(DefaultMask))
	}
	for _, o := range othersMarks {
		if uint32(m)&o.bits != 0 {
			return fmt.Errorf("%#x overlaps %#x, which %s uses; write two other bits, such as %#x", uint32(m), o.bits, o.owner, uint32(DefaultMask))
		}
	}
	return nil
}
