package hostnet

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/family"
	"weft/internal/marks"
	"weft/internal/rtnetlink"
)

// Metrics (ip-route(8), "metric") of weft's routes.
const (
	// A route to a peer has the lowest metric of its family, so that another program's
	// route to the same prefix either conflicts with it visibly or loses to it. The
	// kernel takes 0 for 1024 in IPv6.
	peerMetric4 = 0
	peerMetric6 = 1

	// An unreachable route loses to every other to the same prefix.
	unreachableMetric = 1 << 30
)

// routeKey is what the kernel distinguishes routes by: adding a second one with the same
// key fails, whichever program's the first is.
type routeKey struct {
	table  int
	dst    netip.Prefix
	metric int
}

func (k routeKey) compare(o routeKey) int {
	return cmp.Or(cmp.Compare(k.table, o.table), k.dst.Compare(o.dst), cmp.Compare(k.metric, o.metric))
}

// route is one of weft's routes, or what the kernel has under weft's protocol number.
type route struct {
	routeKey
	link int        // index of the device; 0 for an unreachable route
	src  netip.Addr // preferred source; may be the zero Addr
	mtu  int        // bytes, locked (ip-route(8)); 0: the device's

	// foreign says that the route carries something that weft never sets, so it
	// can't be what is wanted.
	foreign bool
}

// wantedRoutes returns the routes that must hold, each once, with tun being the TUN device's index.
func wantedRoutes(n Network, tun int) []route {
	routes := make([]route, 0, len(n.PeerCIDRs)+len(n.PeerAddresses)+len(n.ClusterCIDRs)+len(n.PodCIDRs))
	for _, p := range n.PeerCIDRs {
		routes = append(routes, route{
			routeKey: routeKey{unix.RT_TABLE_MAIN, p, peerMetric(p)}, link: tun, src: family.Of(p.Addr()).First(n.Addresses), mtu: n.MTUs[p],
		})
	}
	// Only forwarded packets meet these, and they have a source already.
	for _, a := range n.PeerAddresses {
		p := netip.PrefixFrom(a, a.BitLen())
		routes = append(routes, route{routeKey: routeKey{marks.RouteTable, p, peerMetric(p)}, link: tun, mtu: n.MTUs[p]})
	}
	// A packet to a pod that isn't there is answered here; the default gateway must
	// not see it.
	for _, p := range n.ClusterCIDRs {
		routes = append(routes, route{routeKey: routeKey{unix.RT_TABLE_MAIN, p, unreachableMetric}})
	}
	for _, p := range n.PodCIDRs {
		if !slices.Contains(n.ClusterCIDRs, p) {
			routes = append(routes, route{routeKey: routeKey{unix.RT_TABLE_MAIN, p, unreachableMetric}})
		}
	}
	return routes
}

func peerMetric(p netip.Prefix) int {
	if p.Addr().Is4() {
		return peerMetric4
	}
	return peerMetric6
}

// difference is how to get from the routes that there are to those that are wanted.
type difference struct {
	missing []route // their keys are free
	changed []route // their keys are held by routes that differ
	stale   []route // to be removed once the above hold
}

// diffRoutes compares. Each route is wanted once.
func diffRoutes(have, want []route) difference {
	held := make(map[route]bool, len(have)) // of all that there are, whether they are wanted
	heldKeys := make(map[routeKey]bool, len(have))
	for _, r := range have {
		held[r] = false
		heldKeys[r.routeKey] = true
	}
	var d difference
	changing := make(map[routeKey]bool)
	for _, r := range want {
		if _, ok := held[r]; ok {
			held[r] = true
		} else if heldKeys[r.routeKey] {
			changing[r.routeKey] = true
			d.changed = append(d.changed, r)
		} else {
			d.missing = append(d.missing, r)
		}
	}
	for _, r := range have {
		switch {
		case held[r]:
		case changing[r.routeKey]:
			// It is what the changed route replaces. A second one with this key, which
			// only IPv4 allows, is stale.
			delete(changing, r.routeKey)
		default:
			d.stale = append(d.stale, r)
		}
	}
	return d
}

// parseRoute returns what weft wants to know of a route from the kernel.
func parseRoute(r netlink.Route) route {
	parsed := route{
		routeKey: routeKey{r.Table, rtnetlink.Prefix(r.Dst), r.Priority},
		mtu:      r.MTU,
		foreign: r.Gw != nil || r.Via != nil || r.Encap != nil || len(r.MultiPath) > 0 || r.MTU != 0 && !r.MTULock || r.Tos != 0 ||
			r.Type != unix.RTN_UNICAST && r.Type != unix.RTN_UNREACHABLE,
	}
	parsed.src, _ = netip.AddrFromSlice(r.Src)
	// IPv6 shows the loopback device in an unreachable route.
	if r.Type == unix.RTN_UNICAST {
		parsed.link = r.LinkIndex
	}
	return parsed
}

// netlink returns r as rtnetlink takes it.
func (r route) netlink() *netlink.Route {
	n := &netlink.Route{
		Protocol:  marks.RouteProtocol,
		Table:     r.table,
		Dst:       rtnetlink.IPNet(r.dst),
		Priority:  r.metric,
		Type:      unix.RTN_UNREACHABLE,
		LinkIndex: r.link,
		MTU:       r.mtu,
		// Forwarded IPv6 heeds no other MTU of a route (ip6_dst_mtu_maybe_forward in
		// include/net/ip6_route.h), nor does IPv4 before Linux 5.12.
		MTULock: r.mtu != 0,
	}
	if r.src.IsValid() {
		n.Src = r.src.AsSlice()
	}
	if r.link != 0 {
		n.Type = unix.RTN_UNICAST
		n.Scope = netlink.SCOPE_LINK
	}
	return n
}
