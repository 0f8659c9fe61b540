package hostnet

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"weft/internal/family"
	"weft/internal/marks"
)

// Network is what must hold on this node. Any list may be empty, and each may
// hold addresses of both families.
type Network struct {
	// TUN is the name of the device that leads to the other nodes' pods. It exists
	// already and belongs to weft alone: an address on it that is not in Addresses
	// is removed.
	TUN string

	// MTU is the largest packet in bytes that TUN takes; at least 1280 where IPv6
	// is used (RFC 8200, section 5).
	MTU int

	// GSOMaxSize and GSOMaxSegs bound the super-packets that the node itself sends
	// into TUN, in bytes and in segments.
	GSOMaxSize, GSOMaxSegs int

	// Addresses are the node's own overlay addresses, out of PodCIDRs. TUN carries them.
	Addresses []netip.Addr

	// PodCIDRs are this node's. They lie within ClusterCIDRs.
	PodCIDRs []netip.Prefix

	// ClusterCIDRs are where every pod's address comes from.
	ClusterCIDRs []netip.Prefix

	// PeerCIDRs are the other nodes' pod CIDRs. They lie within ClusterCIDRs, and overlap
	// neither each other nor PodCIDRs.
	PeerCIDRs []netip.Prefix

	// PeerAddresses are the other nodes' underlay addresses. This node's pods reach
	// them through the overlay, never bare on the underlay and never masqueraded;
	// the node itself reaches them as before.
	PeerAddresses []netip.Addr

	// MTUs are those in bytes of the PeerCIDRs and PeerAddresses to which smaller packets than
	// MTU have to be sent. The kernel reports them to senders of larger ones.
	MTUs map[netip.Prefix]int

	// Senders are where the other nodes' datagrams come from: their underlay addresses,
	// those that they have proven included, and those to which they roam. Another address is a non-peer source, whose datagrams
	// are limited.
	Senders []netip.Addr

	// PeerEndpoints are where the other nodes receive datagrams: every address that is
	// known of a node, with its port. Of this node only weftd may send there.
	PeerEndpoints []netip.AddrPort

	// Known are the underlay addresses that the other nodes know as this one's. What the node
	// itself sends into TUN from another address of its own, outside the cluster CIDRs, is
	// masqueraded.
	Known []netip.Addr

	// Port is the UDP port on which this node receives datagrams.
	Port uint16

	// SourcePorts are the UDP ports from which this node sends them.
	SourcePorts []uint16

	// MarkMask is the bits of packets' marks that are weft's.
	MarkMask marks.Mask

	// Trusted are the names of interfaces from which this node's pods may be reached by
	// their addresses, such as a VPN's.
	Trusted []string

	// RandomPorts says that what pods send to the outside gets a random source port, and
	// not the pod's own where that is free.
	RandomPorts bool
}

// check returns what is wrong with what the configuration says. The rest comes from a Plan,
// which control.NewPlan has checked.
func (n Network) check() error {
	if n.TUN == "" || len(n.TUN) >= unix.IFNAMSIZ || strings.ContainsAny(n.TUN, "/\"\\* \t\n") {
		return fmt.Errorf("%q is not a valid name for the TUN device", n.TUN)
	}
	if n.Port == 0 {
		return errors.New("weft's UDP port is not known")
	}
	for _, name := range n.Trusted {
		if name == n.TUN || strings.ContainsAny(name, "/\"\\* \t\n") {
			return fmt.Errorf("%q is not a valid name for an interface that may reach pods", name)
		}
	}
	if err := n.MarkMask.Check(); err != nil {
		return fmt.Errorf("the mask of weft's marks: %w", err)
	}
	return nil
}

// canonical returns n with what describes peers sorted, each once, and without the addresses
// that pods can't reach, with or without a route: link-local ones, and those of a family
// that pods don't have.
func (n Network) canonical() Network {
	unreachable := func(a netip.Addr) bool { return !a.IsGlobalUnicast() || !n.uses(family.Of(a)) }
	if slices.ContainsFunc(n.PeerAddresses, unreachable) {
		n.PeerAddresses = slices.DeleteFunc(slices.Clone(n.PeerAddresses), unreachable)
	}
	n.PeerCIDRs = canonical(n.PeerCIDRs, netip.Prefix.Compare)
	n.sortSets()
	return n
}

// sortSets makes canonical what the guard table's sets hold as it is.
func (n *Network) sortSets() {
	n.PeerAddresses = canonical(n.PeerAddresses, netip.Addr.Compare)
	n.Senders = canonical(n.Senders, netip.Addr.Compare)
	n.PeerEndpoints = canonical(n.PeerEndpoints, netip.AddrPort.Compare)
	n.Known = canonical(n.Known, netip.Addr.Compare)
}

// canonical returns all, sorted and each once. It doesn't change all.
func canonical[T comparable](all []T, compare func(T, T) int) []T {
	for i := range len(all) - 1 {
		if compare(all[i], all[i+1]) >= 0 {
			all = slices.Clone(all)
			slices.SortFunc(all, compare)
			return slices.Compact(all)
		}
	}
	return all
}

// apart returns what only the one and what only the other of two lists has, both of which
// are as canonical returns them.
func apart[T any](a, b []T, compare func(T, T) int) (onlyA, onlyB []T) {
	for len(a) > 0 && len(b) > 0 {
		switch c := compare(a[0], b[0]); {
		case c < 0:
			onlyA, a = append(onlyA, a[0]), a[1:]
		case c > 0:
			onlyB, b = append(onlyB, b[0]), b[1:]
		default:
			a, b = a[1:], b[1:]
		}
	}
	return append(onlyA, a...), append(onlyB, b...)
}

// uses reports whether the overlay has addresses of the family.
func (n Network) uses(f family.Family) bool {
	return slices.ContainsFunc(n.ClusterCIDRs, func(p netip.Prefix) bool { return family.Of(p.Addr()) == f })
}

// firstOf joins the first few of errs, and says how many more there are: what goes
// wrong for one of 5,000 peers tends to go wrong for all.
func firstOf(errs []error) error {
	const few = 5
	if len(errs) <= few {
		return errors.Join(errs...)
	}
	return errors.Join(append(errs[:few:few], fmt.Errorf("and %d more errors of this kind", len(errs)-few))...)
}
