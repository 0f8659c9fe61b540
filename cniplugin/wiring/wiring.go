// Package wiring makes, compares and removes what a pod has in the kernel: its veth, and on that
// addresses, routes, neighbours and settings, in the node's network namespace and the pod's.
//
// Everything hangs off the veth, whose name follows from the attachment: removing the veth
// undoes all of it. The package never touches a link that is not weft's, and knows neither
// lease files nor the commands of CNI.
package wiring

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/family"
	"weft/internal/marks"
	"weft/internal/rtnetlink"
	"weft/ipam"
)

const (
	// maxAlias and maxAltName are the lengths in bytes of the longest alias and alternative
	// name of a link (IFALIASZ and ALTIFNAMSIZ, less their ends).
	maxAlias   = 255
	maxAltName = 127
)

var (
	// gateway4 and gateway6 are the pods' way out: link-local addresses on the host side
	// of every veth, the same for all pods and on all nodes.
	gateway4 = netip.MustParseAddr("169.254.1.1")
	gateway6 = netip.MustParseAddr("fe80::1")
)

// Wiring says what one attachment has in the kernel. It is data alone: Steps make what it
// says, Missing compares.
type Wiring struct {
	HostName, PodName string
	HostMAC, PodMAC   net.HardwareAddr
	Addresses         []netip.Addr
	Routes            []*types.Route // all by the node
	MTU               int            // in bytes, of both ends

	// GSOMaxSize (bytes) and GSOMaxSegs bound super-packets; 0 leaves the kernel's bounds.
	GSOMaxSize, GSOMaxSegs int

	// alias marks the host side as complete; it is set last.
	alias string
	// altName is how people may call the host side, after the pod; empty if it has no name.
	altName string
}

// HostName returns the name of the host side of the veth of a: 44 bits of a hash, so two
// attachments of one node practically never meet, and DEL finds it without any state.
func HostName(a ipam.Attachment) string {
	sum := sha256.Sum256([]byte(a.String()))
	return "weft" + hex.EncodeToString(sum[:])[:11]
}

// New returns the wiring of what lease says; Routes, MTU and the bounds of super-packets are
// the caller's to fill in.
func New(lease ipam.Lease) *Wiring {
	sum := sha256.Sum256([]byte(lease.String()))
	w := &Wiring{
		HostName: HostName(lease.Attachment),
		PodName:  lease.IfName,
		// Addresses chosen at creation are left alone by udev, which otherwise changes the
		// host side's behind our back, and spare reading them back.
		HostMAC:   localMAC(sum[16:22]),
		PodMAC:    localMAC(sum[24:30]),
		Addresses: lease.Addresses,
		alias:     lease.String(),
		altName:   altNameOf(altNamePrefix, lease.Attachment, lease.Pod),
	}
	if lease.Pod != "" {
		w.alias += " " + lease.Pod
	}
	w.alias = w.alias[:min(len(w.alias), maxAlias)]
	return w
}

// altNamePrefix is what every alternative name begins with: systemd-networkd and others
// match them like names, and a pod's name alone may be that of a link that they configure.
const altNamePrefix = "weft-"

// altNameOf returns the alternative name of the host side of a pod's veth, or an empty one
// if it has none.
func altNameOf(prefix string, a ipam.Attachment, pod string) string {
	if pod == "" {
		return ""
	}
	namespace, name, _ := strings.Cut(pod, "/")
	if a.IfName != "eth0" {
		prefix += a.IfName + "."
	}
	name = prefix + name + "." + namespace
	return name[:min(len(name), maxAltName)]
}

// parseAlias is the inverse of the alias that New makes.
func parseAlias(alias string) (a ipam.Attachment, pod string, ok bool) {
	attachment, pod, _ := strings.Cut(alias, " ")
	a.ContainerID, a.IfName, ok = strings.Cut(attachment, "/")
	return a, pod, ok
}

// SetRoutes has the pod reach what routes say, or everything if there are none. All of
// them lead to the node, the pod's only router.
func (w *Wiring) SetRoutes(routes []*types.Route) error {
	if len(routes) == 0 {
		for _, addr := range w.Addresses {
			routes = append(routes, &types.Route{Dst: *defaultOf(addr)})
		}
	}
	for _, route := range routes {
		route = route.Copy()
		addr := family.Of(rtnetlink.Addr(route.Dst.IP)).First(w.Addresses)
		if !addr.IsValid() {
			return fmt.Errorf("ipam.routes: %s can't be reached from %s: the pod has no address of that family", &route.Dst, w.Addresses)
		}
		gateway := GatewayOf(addr)
		if route.GW != nil && rtnetlink.Addr(route.GW) != gateway {
			return fmt.Errorf("ipam.routes: %s by %s: a pod's only router is its node; remove gw", &route.Dst, route.GW)
		}
		route.GW = gateway.AsSlice()
		w.Routes = append(w.Routes, route)
	}
	return nil
}

// localMAC makes a locally administered unicast address of six random bytes.
func localMAC(random []byte) net.HardwareAddr {
	mac := net.HardwareAddr(append([]byte(nil), random...))
	mac[0] = mac[0]&^1 | 2
	return mac
}

// GatewayOf returns the gateway of a pod that has addr.
func GatewayOf(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return gateway4
	}
	return gateway6
}

// defaultOf returns 0.0.0.0/0 or ::/0, whichever is of the family of addr.
func defaultOf(addr netip.Addr) *net.IPNet {
	return rtnetlink.IPNet(netip.PrefixFrom(addr, 0).Masked())
}

// veth puts the other end straight into the pod, under its final name, so there is no
// moment at which the pair exists elsewhere.
func (w *Wiring) veth(podNS int) *netlink.Veth {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = w.HostName
	attrs.HardwareAddr = w.HostMAC
	attrs.MTU = w.MTU
	attrs.Group = marks.PodLinkGroup
	attrs.GSOMaxSize, attrs.GSOMaxSegs = uint32(w.GSOMaxSize), uint32(w.GSOMaxSegs)
	veth := netlink.NewVeth(attrs)
	veth.PeerName = w.PodName
	veth.PeerHardwareAddr = w.PodMAC
	veth.PeerMTU = uint32(w.MTU)
	veth.PeerNamespace = netlink.NsFd(podNS)
	return veth
}

func (w *Wiring) podAddrs() []*netlink.Addr {
	var addrs []*netlink.Addr
	for _, addr := range w.Addresses {
		a := &netlink.Addr{IPNet: rtnetlink.HostNet(addr)}
		if addr.Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		addrs = append(addrs, a)
	}
	return addrs
}

func (w *Wiring) hostAddrs() []*netlink.Addr {
	var addrs []*netlink.Addr
	for _, addr := range w.Addresses {
		if addr.Is4() {
			addrs = append(addrs, &netlink.Addr{IPNet: rtnetlink.HostNet(gateway4), Scope: int(netlink.SCOPE_LINK)})
		} else {
			addrs = append(addrs, &netlink.Addr{IPNet: rtnetlink.IPNet(netip.PrefixFrom(gateway6, 64)), Flags: unix.IFA_F_NODAD})
		}
	}
	return addrs
}

// nodeAddrs are the node's own addresses once more, on the host side of the pod: the
// kernel removes IPv4 routes when their preferred source is on no device any more
// (fib_sync_down_addr in net/ipv4/fib_semantics.c). The TUN device goes whenever weftd
// ends, and the routes to the pod must stay.
func (w *Wiring) nodeAddrs(own []netip.Addr) []*netlink.Addr {
	var addrs []*netlink.Addr
	for _, addr := range own {
		if addr.Is4() {
			addrs = append(addrs, &netlink.Addr{IPNet: rtnetlink.HostNet(addr)})
		}
	}
	return addrs
}

// podNeighbours spare the pod every question for its gateway.
func (w *Wiring) podNeighbours(link int) []*netlink.Neigh {
	var neighbours []*netlink.Neigh
	for _, addr := range w.Addresses {
		neighbours = append(neighbours, permanent(link, GatewayOf(addr), w.HostMAC))
	}
	return neighbours
}

// hostNeighbours spare the host every question for the pod, and let a pod answer for no
// other address than its own.
func (w *Wiring) hostNeighbours(link int) []*netlink.Neigh {
	var neighbours []*netlink.Neigh
	for _, addr := range w.Addresses {
		neighbours = append(neighbours, permanent(link, addr, w.PodMAC))
	}
	return neighbours
}

func permanent(link int, addr netip.Addr, mac net.HardwareAddr) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: link, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: mac}
}

// podRoutes come with the one to the IPv4 gateway first, so that those by it need no flag
// (RTNH_F_ONLINK): virtual machines copy the routes into a guest, but not their flags. An
// IPv6 gateway is link-local, and so on the link anyway.
func (w *Wiring) podRoutes(link int) []*netlink.Route {
	var routes []*netlink.Route
	if slices.ContainsFunc(w.Addresses, netip.Addr.Is4) {
		routes = append(routes, &netlink.Route{LinkIndex: link, Dst: rtnetlink.HostNet(gateway4), Scope: netlink.SCOPE_LINK})
	}
	for _, r := range w.Routes {
		route := &netlink.Route{
			LinkIndex: link,
			Dst:       &r.Dst,
			Gw:        r.GW,
			MTU:       r.MTU,
			AdvMSS:    r.AdvMSS,
			Priority:  r.Priority,
		}
		if r.Table != nil {
			route.Table = *r.Table
		}
		routes = append(routes, route)
	}
	return routes
}

// hostRoutes lead to the pod's addresses. The node itself speaks to them from the first
// of own that is of their family. The kernel refuses a source that the node does not have.
func (w *Wiring) hostRoutes(link int, own []netip.Addr) []*netlink.Route {
	var routes []*netlink.Route
	for _, addr := range w.Addresses {
		route := &netlink.Route{
			LinkIndex: link,
			Dst:       rtnetlink.HostNet(addr),
			Scope:     netlink.SCOPE_LINK,
			Protocol:  marks.PodRouteProtocol,
		}
		if src := family.Of(addr).First(own); src.IsValid() {
			route.Src = src.AsSlice()
		}
		routes = append(routes, route)
	}
	return routes
}
