package hostnet

import (
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"weft/internal/family"
	"weft/internal/rtnetlink"
)

// untranslated matches the connections from pods to the outside that began while no guard
// table masqueraded them. Connection tracking decides on a translation once, so they would
// go on without one for as long as the pod sends.
type untranslated struct {
	network Network
	local   []netip.Addr // this node's own addresses
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (u untranslated) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	from, to := addrOf(flow.Forward.SrcIP), addrOf(flow.Forward.DstIP)
	contain := func(prefixes []netip.Prefix, a netip.Addr) bool {
		return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	return contain(u.network.PodCIDRs, from) &&
		addrOf(flow.Reverse.DstIP) == from && addrOf(flow.Reverse.SrcIP) == to &&
		to.IsGlobalUnicast() && !contain(u.network.ClusterCIDRs, to) &&
		!slices.Contains(u.network.PeerAddresses, to) && !slices.Contains(u.local, to)
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// dropUntranslated makes connection tracking decide again on what untranslated matches.
func (k *kernel) dropUntranslated(n Network) error {
	addrs, err := rtnetlink.Dump(func() ([]netlink.Addr, error) { return k.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return err
	}
	u := untranslated{network: n}
	for _, a := range addrs {
		u.local = append(u.local, addrOf(a.IP))
	}
	for _, f := range family.All {
		if !n.uses(f) {
			continue
		}
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(f.AF()), u); err != nil {
			return err
		}
	}
	return nil
}
