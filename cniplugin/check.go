package cniplugin

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/marks"
	"weft/internal/rtnetlink"
)

// Check compares what a pod has with what ADD gave it, and names everything that is
// missing. It changes nothing and needs no weftd, but the guard.
func (p *Plugin) Check(args *skel.CmdArgs) error { return cniError(p.check(args)) }

func (p *Plugin) check(args *skel.CmdArgs) error {
	req, err := parseRequest(args)
	if err != nil {
		return err
	}
	if err := req.conf.IPAM.check(); err != nil {
		return err
	}
	result, err := req.conf.prevResult()
	if err != nil {
		return err
	}
	if result == nil {
		return invalid("prevResult is missing: CHECK compares with it")
	}
	if _, err := readGuarded(req.conf.RunDir); err != nil {
		return withCode(types.ErrTryAgainLater, err)
	}
	lease, err := req.lease()
	if err != nil {
		return err
	}
	k, err := openBoth(req.netns)
	if err != nil {
		return err
	}
	defer k.close()
	c := &checker{kernel: k, wiring: newWiring(req, lease.Addresses), result: result}
	if err := c.run(req); err != nil {
		return withCode(CodeWiring, err)
	}
	if len(c.missing) > 0 {
		return withCode(CodeIncomplete, fmt.Errorf("%s: %s", req.attachment, strings.Join(c.missing, "; ")))
	}
	return nil
}

// checker collects what is missing; an error means that it could not look.
type checker struct {
	*kernel
	*wiring
	result  *types100.Result
	sources []netip.Addr // as the routes to the pod must name them; nil: any
	missing []string
}

func (c *checker) require(ok bool, format string, args ...any) {
	if !ok {
		c.missing = append(c.missing, fmt.Sprintf(format, args...))
	}
}

func (c *checker) run(req *request) error {
	claimed := c.checkResult(req)
	host, ours, err := c.hostSide(c.hostName)
	if err != nil {
		return err
	}
	if !ours {
		c.require(false, "the host side %s is missing", c.hostName)
		return nil
	}
	pod, err := c.pod.LinkByName(c.podName)
	if err != nil {
		c.require(false, "the pod's interface %s is missing (%v)", c.podName, err)
		return nil
	}
	c.checkLinks(host.Attrs(), pod.Attrs(), claimed)
	// Another plugin of the chain may have given the pod another MAC address.
	c.podMAC, c.hostMAC = pod.Attrs().HardwareAddr, host.Attrs().HardwareAddr
	return errors.Join(
		c.checkAddrs("the pod", c.pod, pod, c.podAddrs()),
		c.checkAddrs("the host side", c.host, host, c.hostAddrs()),
		c.checkNeighbours("the pod", c.pod, c.podNeighbours(pod.Attrs().Index)),
		c.checkNeighbours("the host side", c.host, c.hostNeighbours(host.Attrs().Index)),
		c.checkPodRoutes(pod),
		c.checkHostRoutes(host.Attrs().Index))
}

// checkResult compares the lease with prevResult and returns the pod's interface in it,
// or nil. The routes that ADD made are those by weft's gateways.
func (c *checker) checkResult(req *request) *types100.Interface {
	at := podInterface(c.result, req)
	if at < 0 {
		c.require(false, "prevResult has no interface %s in %s", c.podName, req.netns)
		return nil
	}
	for _, r := range c.result.Routes {
		if gw := addrOf(r.GW); gw == gateway4 || gw == gateway6 {
			c.routes = append(c.routes, r)
		}
	}
	var given []netip.Addr
	for _, ip := range c.result.IPs {
		if ip.Interface != nil && *ip.Interface == at {
			addr := addrOf(ip.Address.IP)
			given = append(given, addr)
			c.require(slices.Contains(c.addresses, addr), "%s of prevResult is not leased", addr)
		}
	}
	for _, addr := range c.addresses {
		c.require(slices.Contains(given, addr), "%s is leased, but not in prevResult", addr)
	}
	return c.result.Interfaces[at]
}

func (c *checker) checkLinks(host, pod *netlink.LinkAttrs, claimed *types100.Interface) {
	c.require(host.ParentIndex == pod.Index && pod.ParentIndex == host.Index, "%s and %s are not one pair", c.hostName, c.podName)
	c.require(host.Alias != "", "%s is not marked as complete", c.hostName)
	c.require(host.Flags&net.FlagUp != 0, "%s is down", c.hostName)
	c.require(pod.Flags&net.FlagUp != 0, "%s is down", c.podName)
	c.require(host.MTU == pod.MTU, "%s has MTU %d, %s has %d", c.hostName, host.MTU, c.podName, pod.MTU)
	if claimed == nil {
		return
	}
	mac := pod.HardwareAddr.String()
	c.require(claimed.Mac == "" || strings.EqualFold(claimed.Mac, mac), "%s has MAC %s, prevResult has %s", c.podName, mac, claimed.Mac)
	c.require(claimed.Mtu == 0 || claimed.Mtu == pod.MTU, "%s has MTU %d, prevResult has %d", c.podName, pod.MTU, claimed.Mtu)
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
			return c.pod.RouteListFiltered(family(route.Dst.IP), filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_DST|netlink.RT_FILTER_GW|netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return fmt.Errorf("list the pod's routes: %w", err)
		}
		onlink = onlink || slices.ContainsFunc(have, func(r netlink.Route) bool { return r.Flags&int(netlink.FLAG_ONLINK) != 0 })
		c.require(len(have) > 0 || route.Gw == nil && onlink, "the pod lacks the route to %s by %s", route.Dst, route.Gw)
	}
	return nil
}

func family(ip net.IP) int {
	if ip.To4() != nil {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// checkHostRoutes asks the kernel for each route rather than for all of them: a node has
// thousands.
func (c *checker) checkHostRoutes(link int) error {
	for _, addr := range c.addresses {
		routes, err := c.host.RouteGetWithOptions(addr.AsSlice(), &netlink.RouteGetOptions{FIBMatch: true})
		if err != nil && !errors.Is(err, unix.ENETUNREACH) && !errors.Is(err, unix.EHOSTUNREACH) {
			return fmt.Errorf("look up the route to %s: %w", addr, err)
		}
		found := len(routes) > 0 && routes[0].LinkIndex == link && routes[0].Protocol == marks.PodRouteProtocol
		c.require(found, "the host lacks the route to %s by %s", addr, c.hostName)
		if i := slices.IndexFunc(c.sources, func(s netip.Addr) bool { return s.Is4() == addr.Is4() }); found && i >= 0 {
			c.require(addrOf(routes[0].Src) == c.sources[i], "the route to %s lacks the node's address %s", addr, c.sources[i])
		}
	}
	return nil
}
