package hostnet

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/family"
	"weft/internal/marks"
	"weft/internal/rtnetlink"
)

// LocalNetwork is a network that this host reaches directly by an interface.
type LocalNetwork struct {
	Interface string
	Prefix    netip.Prefix
}

// String returns it like 10.244.200.0/24 on eth1.
func (l LocalNetwork) String() string { return fmt.Sprintf("%s on %s", l.Prefix, l.Interface) }

// Overlaps returns why the host's own networks and the pods' do not go together, a sentence
// with its remedy for each. A single address, such as another overlay's on its device, is no
// network.
func Overlaps(tun string, cluster []netip.Prefix) ([]string, error) {
	local, err := LocalNetworks(tun)
	if err != nil {
		return nil, err
	}
	local = slices.DeleteFunc(local, func(l LocalNetwork) bool { return l.Prefix.IsSingleIP() })
	var texts []string
	for _, l := range Overlapping(cluster, local) {
		texts = append(texts, fmt.Sprintf("the local network %s overlaps the cluster CIDRs %s, so the guard table drops its packets; remove that network from this node, or choose other clusterCIDRs on all nodes",
			l, cluster))
	}
	return texts, nil
}

// Overlapping returns those of the local networks that share an address with a cluster
// CIDR, each once. The host would lose them to the overlay.
func Overlapping(cluster []netip.Prefix, local []LocalNetwork) []LocalNetwork {
	var overlapping []LocalNetwork
	for _, l := range local {
		if slices.ContainsFunc(cluster, l.Prefix.Overlaps) && !slices.Contains(overlapping, l) {
			overlapping = append(overlapping, l)
		}
	}
	return overlapping
}

// LocalNetworks returns the networks of the addresses of this host and of its routes
// without a gateway, in the network namespace of the calling thread. What weft made, and
// what is a loopback's, a pod's or the TUN device's, is not among them.
func LocalNetworks(tun string) ([]LocalNetwork, error) {
	k, err := openKernel()
	if err != nil {
		return nil, err
	}
	defer k.close()
	links, err := rtnetlink.Dump(k.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	names := make(map[int]string)
	for _, link := range links {
		if a := link.Attrs(); a.Name != tun && a.Group != marks.PodLinkGroup && a.RawFlags&unix.IFF_LOOPBACK == 0 {
			names[a.Index] = a.Name
		}
	}
	var networks []LocalNetwork
	add := func(link int, p netip.Prefix) {
		if name, ok := names[link]; ok && p.IsValid() && p.Bits() > 0 && !p.Addr().IsLinkLocalUnicast() && !p.Addr().IsMulticast() {
			networks = append(networks, LocalNetwork{name, p.Masked()})
		}
	}
	for _, f := range family.All {
		addrs, err := rtnetlink.Dump(func() ([]netlink.Addr, error) { return k.AddrList(nil, f.AF()) })
		if err != nil {
			return nil, fmt.Errorf("list the addresses: %w", err)
		}
		for _, a := range addrs {
			add(a.LinkIndex, rtnetlink.Prefix(a.IPNet))
		}
		routes, err := rtnetlink.Dump(func() ([]netlink.Route, error) {
			return k.RouteListFiltered(f.AF(), &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("list the routes: %w", err)
		}
		for _, r := range routes {
			if r.Gw == nil && r.Via == nil && r.Type == unix.RTN_UNICAST && r.Protocol != marks.RouteProtocol && r.Protocol != marks.PodRouteProtocol && r.Dst != nil {
				add(r.LinkIndex, rtnetlink.Prefix(r.Dst))
			}
		}
	}
	return networks, nil
}

// ForeignRoutes returns the routes of other programs that lead to a part of the cluster CIDRs, in
// the words of ip-route(8). The kernel prefers them to weft's, which are less specific. Those of
// the host's own networks are not among them: see Overlaps.
func ForeignRoutes(tun string, cluster []netip.Prefix) ([]string, error) {
	local, err := LocalNetworks(tun)
	if err != nil {
		return nil, err
	}
	k, err := openKernel()
	if err != nil {
		return nil, err
	}
	defer k.close()
	others, err := k.othersRoutes()
	if err != nil {
		return nil, err
	}
	var found []string
	for key, r := range others {
		within := func(c netip.Prefix) bool { return c.Bits() <= key.dst.Bits() && c.Contains(key.dst.Addr()) }
		own := func(l LocalNetwork) bool { return l.Prefix == key.dst && !key.dst.IsSingleIP() }
		if r.Protocol != marks.PodRouteProtocol && slices.ContainsFunc(cluster, within) && !slices.ContainsFunc(local, own) {
			found = append(found, k.describe(r))
		}
	}
	slices.Sort(found)
	return found, nil
}

// Destinations returns where the routes of this host lead, in all its tables, but for default routes,
// those of the kernel to its own addresses, and weft's. A private network far away may be among them,
// which LocalNetworks does not know.
func Destinations() ([]netip.Prefix, error) {
	k, err := openKernel()
	if err != nil {
		return nil, err
	}
	defer k.close()
	var found []netip.Prefix
	for _, f := range family.All {
		routes, err := rtnetlink.Dump(func() ([]netlink.Route, error) {
			return k.RouteListFiltered(f.AF(), &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("list the routes: %w", err)
		}
		for _, r := range routes {
			if r.Table == unix.RT_TABLE_LOCAL || r.Dst == nil || r.Protocol == marks.RouteProtocol || r.Protocol == marks.PodRouteProtocol {
				continue
			}
			if p := rtnetlink.Prefix(r.Dst); p.Bits() > 0 {
				found = append(found, p.Masked())
			}
		}
	}
	return found, nil
}
