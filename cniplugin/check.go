package cniplugin

import (
	"bytes"
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
	"weft/internal/nodefile"
	"weft/internal/rtnetlink"
)

// Check compares what a pod has with what ADD gave it, and names everything that is
// missing. It changes nothing and needs no weftd.
func (p *Plugin) Check(args *skel.CmdArgs) error { return cniError(p.check(args)) }

func (p *Plugin) check(args *skel.CmdArgs) error {
	req, err := parseRequest(args)
	if err != nil {
		return err
	}
	if err := req.conf.checkIPAM(); err != nil {
		return err
	}
	prev, err := req.conf.prevResult()
	if err != nil {
		return err
	}
	if prev == nil {
		return withCode(types.ErrInvalidNetworkConfig, errors.New("prevResult is missing: CHECK compares with it"))
	}
	result, err := types100.NewResultFromResult(prev)
	if err != nil {
		return withCode(types.ErrDecodingFailure, fmt.Errorf("convert prevResult: %w", err))
	}
	store, err := req.conf.leases()
	if err != nil {
		return err
	}
	lease, ok, err := store.Find(req.attachment)
	if err != nil {
		return err
	}
	if !ok {
		return withCode(CodeIncomplete, fmt.Errorf("%s has no lease", req.attachment))
	}
	k, err := openBoth(req.netns)
	if err != nil {
		return err
	}
	defer k.close()
	c := &checker{kernel: k, wiring: newWiring(req, nodefile.Node{}, lease.Addresses), result: result}
	if err := c.run(req.netns); err != nil {
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
	missing []string
}

func (c *checker) require(ok bool, format string, args ...any) {
	if !ok {
		c.missing = append(c.missing, fmt.Sprintf(format, args...))
	}
}

func (c *checker) run(sandbox string) error {
	claimed := c.checkResult(sandbox)
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
// or nil.
func (c *checker) checkResult(sandbox string) *types100.Interface {
	at := slices.IndexFunc(c.result.Interfaces, func(i *types100.Interface) bool {
		return i.Name == c.podName && i.Sandbox == sandbox
	})
	if at < 0 {
		c.require(false, "prevResult has no interface %s in %s", c.podName, sandbox)
		return nil
	}
	var given []netip.Addr
	for _, ip := range c.result.IPs {
		if ip.Interface != nil && *ip.Interface == at {
			addr, _ := netip.AddrFromSlice(ip.Address.IP)
			given = append(given, addr.Unmap())
			c.require(slices.Contains(c.addresses, addr.Unmap()), "%s of prevResult is not leased", addr.Unmap())
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
	have, err := rtnetlink.Dump(func() ([]netlink.Route, error) { return c.pod.RouteList(pod, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list the pod's routes: %w", err)
	}
	for _, route := range c.podRoutes(pod.Attrs().Index) {
		found := slices.ContainsFunc(have, func(r netlink.Route) bool {
			return r.Gw.Equal(route.Gw) && (r.Dst == nil || r.Dst.String() == route.Dst.String())
		})
		c.require(found, "the pod lacks the default route by %s", route.Gw)
	}
	return nil
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
	}
	return nil
}
