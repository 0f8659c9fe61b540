package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/encap/overhead"
	"weft/internal/family"
	"weft/internal/hostnet"
	"weft/internal/rtnetlink"
)

func checkOverlap(_ context.Context, h *host) []Finding {
	texts, err := hostnet.Overlaps(h.Config.TUN.Name, h.Config.ClusterCIDRs)
	if err != nil {
		return warn(err.Error(), "")
	}
	if len(texts) > 0 {
		return of(Failed, strings.Join(texts, "\n"))
	}
	return ok("no network of this host lies in the cluster CIDRs")
}

func checkForeignRoutes(_ context.Context, h *host) (found []Finding) {
	routes, err := hostnet.ForeignRoutes(h.Config.TUN.Name, h.Config.ClusterCIDRs)
	if err != nil {
		return warn(err.Error(), "")
	}
	for _, r := range routes {
		found = append(found, fail("a route of another program takes packets to pods: "+r, "find its owner by its protocol, and remove it: ip route del "+r)...)
	}
	if len(found) == 0 {
		return ok("no route of another program leads into the cluster CIDRs")
	}
	return found
}

// checkSysctls compares the sysctls that weftd sets with what they are.
func checkSysctls(_ context.Context, h *host) (found []Finding) {
	_, err := netlink.LinkByName(h.Config.TUN.Name)
	if err != nil || !h.began() {
		if unix.Access("/proc/sys/net/ipv4/ip_forward", unix.W_OK) == nil {
			return ok("weftd sets ip_forward and others when it starts")
		}
		if value, err := hostnet.ReadSysctl("net.ipv4.ip_forward"); err != nil || value != "1" {
			return fail("weftd can't turn forwarding on, because /proc/sys is read-only", "make it writable, or install deploy/sysctl/90-weft.conf as /etc/sysctl.d/90-weft.conf on the host")
		}
		return ok("/proc/sys is read-only, and forwarding is on")
	}
	for _, err := range hostnet.WrongSysctls(hostnet.Network{TUN: h.Config.TUN.Name, ClusterCIDRs: h.Config.ClusterCIDRs}) {
		what, remedy, _ := strings.Cut(err.Error(), ": ")
		found = append(found, fail(what, remedy)...)
	}
	if len(found) == 0 {
		return ok("forwarding is on, and %s has the sysctls that it needs", h.Config.TUN.Name)
	}
	return found
}

// uplink returns the interface by which datagrams leave, and its MTU.
func (h *host) uplink() (name string, mtu int, err error) {
	addr, err := h.underlay()
	if err != nil {
		return "", 0, err
	}
	mtu, name, err = hostnet.UnderlayMTU(addr)
	return name, mtu, err
}

func checkReversePath(_ context.Context, h *host) []Finding {
	name, _, err := h.uplink()
	if err != nil {
		return skipped("the uplink is not known: %v", err)
	}
	strictest := "0"
	for _, conf := range []string{"all", hostnet.SysctlElement(name)} {
		if value, err := hostnet.ReadSysctl("net.ipv4.conf." + conf + ".rp_filter"); err == nil {
			strictest = max(strictest, value) // 0 off, 1 strict, 2 loose: the larger one holds
		}
	}
	if strictest == "1" {
		return warn(fmt.Sprintf("strict rp_filter (1) on %s drops what a peer node itself sends to a hostPort or NodePort here that leads to a local pod", name),
			"sysctl -w net.ipv4.conf."+hostnet.SysctlElement(name)+".rp_filter=2")
	}
	return ok("rp_filter of %s is %s", name, strictest)
}

// isNIC is another one in tests, whose hosts have no cards.
var isNIC = hostnet.IsNIC

// checkRouterAdverts looks for cards that have their addresses or routes from router
// advertisements, and no longer listen to them.
func checkRouterAdverts(_ context.Context, h *host) (found []Finding) {
	if !slices.ContainsFunc(h.Config.ClusterCIDRs, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		return skipped("the cluster has no IPv6")
	}
	routes, err := rtnetlink.Dump(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(family.IPv6.AF(), &netlink.Route{Protocol: unix.RTPROT_RA}, netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return warn("the routes can't be listed: "+err.Error(), "")
	}
	for _, r := range routes {
		link, err := netlink.LinkByIndex(r.LinkIndex)
		if err != nil || !isNIC(link) {
			continue
		}
		conf := "net.ipv6.conf." + hostnet.SysctlElement(link.Attrs().Name)
		forwards, _ := hostnet.ReadSysctl(conf + ".forwarding")
		accepts, _ := hostnet.ReadSysctl(conf + ".accept_ra")
		f := Finding{Result: Warning, Found: link.Attrs().Name + " has routes from router advertisements and ignores new ones, because it forwards and its accept_ra is 1", Remedy: "sysctl -w " + conf + ".accept_ra=2"}
		if forwards == "1" && accepts == "1" && !slices.Contains(found, f) {
			found = append(found, f)
		}
	}
	if len(found) == 0 {
		return ok("no card that needs router advertisements ignores them")
	}
	return found
}

// checkMTU compares the overlay's MTU with what fits the uplink.
func checkMTU(_ context.Context, h *host) []Finding {
	name, underlay, err := h.uplink()
	if err != nil {
		if errors.Is(err, errListUnusable) {
			return skipped("%v", err)
		}
		return fail("the uplink is not known: "+err.Error(), "give this host a default route, or write its address under listen or advertise")
	}
	addr, _ := h.underlay()
	over := overhead.Of(h.Config.Encapsulation, h.ipv6Underlay(addr.Is6()))
	fits := underlay - over
	mtu, origin := fits, "0 (automatic)"
	switch {
	case h.Config.TUN.MTU > 0:
		mtu, origin = h.Config.TUN.MTU, fmt.Sprint(h.Config.TUN.MTU)
	case h.report != nil && h.report.TUN.MTU > 0:
		mtu = h.report.TUN.MTU
	}
	ipv6 := len(family.IPv6.Prefixes(h.Config.ClusterCIDRs)) > 0
	switch {
	case mtu > fits:
		return fail(fmt.Sprintf("packets of the overlay's MTU %d don't fit %s: its MTU is %d, and the encapsulation adds %d bytes (tun.mtu is %s)", mtu, name, underlay, over, origin),
			fmt.Sprintf("write tun.mtu: %d or less (0 is automatic), or raise the MTU of %s", fits, name))
	case ipv6 && mtu < family.LeastMTU6:
		return fail(fmt.Sprintf("the overlay's MTU %d is too small for IPv6, which needs %d: the MTU of %s is %d, and the encapsulation adds %d bytes (tun.mtu is %s)", mtu, family.LeastMTU6, name, underlay, over, origin),
			fmt.Sprintf("raise the MTU of %s to %d or more, or remove IPv6 from clusterCIDRs", name, family.LeastMTU6+over))
	}
	return ok("%d in the overlay, %d on %s", mtu, underlay, name)
}

// ipv6Underlay says whether some datagrams have IPv6 headers.
func (h *host) ipv6Underlay(own bool) bool {
	if !h.registers() {
		if l := h.list(); l.plan != nil {
			return l.plan.EndpointIPv6
		}
	}
	if h.report != nil {
		for _, p := range h.report.Peers {
			own = own || p.Endpoint.Addr().Is6()
		}
	}
	return own
}
