package advertise

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/family"
	"weft/internal/rtnetlink"
)

// node is what the kernel knows about this node.
type node struct {
	links map[int]link // by index

	// addrs are in the kernel's order: of one subnet of IPv4, the primary one first.
	addrs []address

	// routeTo asks which way the kernel would send to an address. The error is errNoRoute
	// if there is none.
	routeTo func(netip.Addr) (route, error)
}

// link is an interface.
type link struct {
	name   string
	kind   string // as in ip -details link; empty for a network card
	group  uint32
	up     bool
	uplink bool // a default route of the main table leads through it
	ofLoop bool // it is the loopback device
}

// address is one that an interface has.
type address struct {
	netip.Prefix
	link  int
	flags int // IFA_F_…
}

// route is the way to an address.
type route struct {
	link   int
	source netip.Addr // invalid if the kernel finds none
	local  bool       // the address is the node's own
}

var errNoRoute = errors.New("there is no route")

// readNode reads what the calling thread's namespace holds. The node is valid until close.
func readNode() (n *node, closeNode func(), err error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	n = &node{routeTo: func(to netip.Addr) (route, error) { return askRoute(h, to) }}
	if err := n.read(h); err != nil {
		h.Close()
		return nil, nil, err
	}
	return n, h.Close, nil
}

func (n *node) read(h *netlink.Handle) error {
	uplinks, err := defaultRouteLinks(h)
	if err != nil {
		return err
	}
	links, err := rtnetlink.Dump(h.LinkList)
	if err != nil {
		return fmt.Errorf("list the interfaces: %w", err)
	}
	n.links = make(map[int]link)
	for _, l := range links {
		attrs := l.Attrs()
		kind := l.Type()
		if kind == "device" {
			kind = ""
		}
		n.links[attrs.Index] = link{
			name: attrs.Name, kind: kind, group: attrs.Group, up: attrs.Flags&net.FlagUp != 0,
			uplink: uplinks[attrs.Index], ofLoop: attrs.Flags&net.FlagLoopback != 0,
		}
	}
	addrs, err := rtnetlink.Dump(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list this node's addresses: %w", err)
	}
	for _, a := range addrs {
		n.addrs = append(n.addrs, address{rtnetlink.Prefix(a.IPNet), a.LinkIndex, a.Flags})
	}
	return nil
}

// defaultRouteLinks returns the indexes of the interfaces that carry a default route.
func defaultRouteLinks(h *netlink.Handle) (map[int]bool, error) {
	indexes := make(map[int]bool)
	for _, f := range family.All {
		routes, err := rtnetlink.Dump(func() ([]netlink.Route, error) {
			filter := &netlink.Route{Table: unix.RT_TABLE_MAIN}
			return h.RouteListFiltered(f.AF(), filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
		})
		if err != nil {
			return nil, fmt.Errorf("list the default routes: %w", err)
		}
		for _, r := range routes {
			indexes[r.LinkIndex] = true
			for _, hop := range r.MultiPath {
				indexes[hop.LinkIndex] = true
			}
		}
	}
	return indexes, nil
}

// askRoute does what `ip route get` does: the kernel looks the route up, and sends nothing.
func askRoute(h *netlink.Handle, to netip.Addr) (route, error) {
	routes, err := h.RouteGet(to.AsSlice())
	for _, none := range []error{
		unix.ENETUNREACH, unix.EHOSTUNREACH, // no route, or one of the type unreachable
		unix.EACCES, unix.EINVAL, // of the type prohibit, blackhole (ip-route(8))
		unix.EAFNOSUPPORT, unix.EOPNOTSUPP, // a kernel without IPv6
	} {
		if errors.Is(err, none) {
			return route{}, errNoRoute
		}
	}
	if err != nil {
		return route{}, fmt.Errorf("look up the route to %s: %w", to, err)
	}
	if len(routes) == 0 {
		return route{}, errNoRoute
	}
	source, _ := netip.AddrFromSlice(routes[0].Src)
	return route{link: routes[0].LinkIndex, source: source.Unmap(), local: routes[0].Type == unix.RTN_LOCAL}, nil
}
