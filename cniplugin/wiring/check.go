package wiring

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/family"
	"weft/internal/marks"
	"weft/internal/rtnetlink"
)

// Claim is what the result of an ADD says of the pod's interface. Zero fields say nothing.
type Claim struct {
	MAC string
	MTU int
}

// Missing returns what the kernel lacks of w, or has otherwise. An error means that it could
// not look.
func (k *Kernel) Missing(w *Wiring, claim Claim) ([]string, error) {
	changed := *w
	c := &checker{Kernel: k, Wiring: &changed}
	err := c.run(claim)
	return c.missing, err
}

// MissingOnHost returns what the host side lacks of addresses, and of the routes to the pod
// from sources; nothing if there is no host side.
func (k *Kernel) MissingOnHost(w *Wiring, sources []netip.Addr) ([]string, error) {
	link, state, err := k.hostSide(w.HostName)
	if err != nil || state < Incomplete {
		return nil, err
	}
	c := &checker{Kernel: k, Wiring: w, sources: sources}
	err = errors.Join(
		c.checkAddrs("the host side", k.host, link, c.hostAddrs()),
		c.checkHostRoutes(link.Attrs().Index))
	return c.missing, err
}

// checker collects what is missing.
type checker struct {
	*Kernel
	*Wiring
	sources []netip.Addr // as the routes to the pod must name them; nil: any
	missing []string
}

func (c *checker) require(ok bool, format string, args ...any) {
	if !ok {
		c.missing = append(c.missing, fmt.Sprintf(format, args...))
	}
}

func (c *checker) run(claim Claim) error {
	host, state, err := c.hostSide(c.HostName)
	if err != nil {
		return err
	}
	if state < Incomplete {
		c.require(false, "the host side %s is missing", c.HostName)
		return nil
	}
	pod, err := c.pod.LinkByName(c.PodName)
	if err != nil {
		c.require(false, "the pod's interface %s is missing (%v)", c.PodName, err)
		return nil
	}
	c.checkLinks(host.Attrs(), pod.Attrs(), claim)
	// Another plugin of the chain may have given the pod another MAC address.
	c.PodMAC, c.HostMAC = pod.Attrs().HardwareAddr, host.Attrs().HardwareAddr
	return errors.Join(
		c.checkAddrs("the pod", c.pod, pod, c.podAddrs()),
		c.checkAddrs("the host side", c.host, host, c.hostAddrs()),
		c.checkNeighbours("the pod", c.pod, c.podNeighbours(pod.Attrs().Index)),
		c.checkNeighbours("the host side", c.host, c.hostNeighbours(host.Attrs().Index)),
		c.checkPodRoutes(pod),
		c.checkHostRoutes(host.Attrs().Index))
}

func (c *checker) checkLinks(host, pod *netlink.LinkAttrs, claim Claim) {
	c.require(host.ParentIndex == pod.Index && pod.ParentIndex == host.Index, "%s and %s are not one pair", c.HostName, c.PodName)
	c.require(host.Alias != "", "%s is not marked as complete", c.HostName)
	c.require(host.Flags&net.FlagUp != 0, "%s is down", c.HostName)
	c.require(pod.Flags&net.FlagUp != 0, "%s is down", c.PodName)
	c.require(host.MTU == pod.MTU, "%s has MTU %d, %s has %d", c.HostName, host.MTU, c.PodName, pod.MTU)
	mac := pod.HardwareAddr.String()
	c.require(claim.MAC == "" || strings.EqualFold(claim.MAC, mac), "%s has MAC %s, prevResult has %s", c.PodName, mac, claim.MAC)
	c.require(claim.MTU == 0 || claim.MTU == pod.MTU, "%s has MTU %d, prevResult has %d", c.PodName, pod.MTU, claim.MTU)
}

func (c *checker) checkAddrs(where string, h *netlink.Handle, link netlink.Link, want []*netlink.Addr) error {
	have, err := rtnetlink.Dump(func() ([]netlink.Addr, error) { return h.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", where, err)
	}
	for _, addr := range want {
		found := slices.ContainsFunc(have, func(a netlink.Addr) bool { return a.IPNet.String() == addr.IPNet.String() })
		c.require(found, "%s lacks the address %s", where, addr.IPNet)
	}
	return nil
}

func (c *checker) checkNeighbours(where string, h *netlink.Handle, want []*netlink.Neigh) error {
	for _, neigh := range want {
		have, err := rtnetlink.Dump(func() ([]netlink.Neigh, error) { return h.NeighList(neigh.LinkIndex, netlink.FAMILY_ALL) })
		if err != nil {
			return fmt.Errorf("list the neighbours of %s: %w", where, err)
		}
		found := slices.ContainsFunc(have, func(n netlink.Neigh) bool {
			return n.IP.Equal(neigh.IP) && n.State&netlink.NUD_PERMANENT != 0 && bytes.Equal(n.HardwareAddr, neigh.HardwareAddr)
		})
		c.require(found, "%s lacks the neighbour %s at %s", where, neigh.IP, neigh.HardwareAddr)
	}
	return nil
}

func (c *checker) checkPodRoutes(pod netlink.Link) error {
	onlink := false
	// The one to the gateway last: pods of older versions have none, and the others onlink.
	for _, route := range slices.Backward(c.podRoutes(pod.Attrs().Index)) {
		filter := &netlink.Route{LinkIndex: route.LinkIndex, Dst: route.Dst, Gw: route.Gw, Table: cmp.Or(route.Table, unix.RT_TABLE_MAIN)}
		have, err := rtnetlink.Dump(func() ([]netlink.Route, error) {
			return c.pod.RouteListFiltered(family.Of(rtnetlink.Addr(route.Dst.IP)).AF(), filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_DST|netlink.RT_FILTER_GW|netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return fmt.Errorf("list the pod's routes: %w", err)
		}
		onlink = onlink || slices.ContainsFunc(have, func(r netlink.Route) bool { return r.Flags&int(netlink.FLAG_ONLINK) != 0 })
		c.require(len(have) > 0 || route.Gw == nil && onlink, "the pod lacks the route to %s by %s", route.Dst, route.Gw)
	}
	return nil
}

// checkHostRoutes asks the kernel for each route rather than for all of them: a node has
// thousands.
func (c *checker) checkHostRoutes(link int) error {
	for _, addr := range c.Addresses {
		routes, err := c.host.RouteGetWithOptions(addr.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
		if err != nil && !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH) {
			return fmt.Errorf("look up the route to %s: %w", addr, err)
		}
		found := len(routes) > 0 && routes[0].LinkIndex == link && routes[0].Protocol == marks.PodRouteProtocol
		if len(routes) > 0 && routes[0].LinkIndex != link {
			c.require(false, "another program's route or routing rule comes before the route to %s by %s; `weft doctor` names it", addr, c.HostName)
			continue
		}
		c.require(found, "the host lacks the route to %s by %s", addr, c.HostName)
		if source := family.Of(addr).First(c.sources); found && source.IsValid() {
			c.require(rtnetlink.Addr(routes[0].Src) == source, "the route to %s lacks the node's address %s", addr, source)
		}
	}
	return nil
}
