package wiring

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Step is one step of making a wiring.
type Step struct {
	What string
	Do   func() error
}

// Steps returns how to make w, in order: settings come before the links go up, routes can only
// come after, and the alias, which says that all is there, is the last. sources are those of
// the node's addresses that Sources returned.
func (k *Kernel) Steps(w *Wiring, sources []netip.Addr) []Step {
	veth := w.veth(int(k.podNS.Fd()))
	var pod netlink.Link
	return []Step{
		{"make the veth (its name must be free in the pod)", func() error { return k.host.LinkAdd(veth) }},
		{"find the pod's interface", func() (err error) {
			pod, err = k.pod.LinkByName(w.PodName)
			return err
		}},
		{"limit the pod's super-packets", func() error { return boundSuperPackets(k.pod, pod, w) }},
		{"set up the host side", func() error { return apply(sysctlRoot, w.hostSettings()) }},
		{"set up the pod's side", func() error {
			return k.podNS.Do(func(ns.NetNS) error { return apply(sysctlRoot, w.podSettings()) })
		}},
		{"add the pod's addresses", func() error { return addAddrs(k.pod, pod, w.podAddrs()) }},
		{"add the gateway's addresses", func() error { return addAddrs(k.host, veth, w.hostAddrs()) }},
		{"add the node's addresses", func() error { return addAddrs(k.host, veth, w.nodeAddrs(sources)) }},
		{"bring up the host side", func() error { return k.host.LinkSetUp(veth) }},
		{"bring up the pod's side", func() error { return k.pod.LinkSetUp(pod) }},
		{"bring up the pod's loopback", func() error { return bringUpLoopback(k.pod) }},
		{"add the pod's neighbours", func() error { return each(w.podNeighbours(pod.Attrs().Index), k.pod.NeighSet) }},
		{"add the host's neighbours", func() error { return each(w.hostNeighbours(veth.Index), k.host.NeighSet) }},
		{"add the pod's routes", func() error { return each(w.podRoutes(pod.Attrs().Index), k.addPodRoute) }},
		// Adding fails where another veth has such a route: that pod holds the address,
		// whatever the leases say.
		{"add the routes to the pod", func() error { return each(w.hostRoutes(veth.Index, sources), k.host.RouteAdd) }},
		{"wait until the kernel accepts packets for the pod", func() error { return k.awaitReady(w) }},
		{"name the host side after the pod", func() error { return nameAfterPod(k.host, veth, w.altName) }},
		{"mark the veth as complete", func() error { return k.host.LinkSetAlias(veth, w.alias) }},
	}
}

// each applies do to items and names the one that fails.
func each[T fmt.Stringer](items []T, do func(T) error) error {
	for _, item := range items {
		if err := do(item); err != nil {
			return fmt.Errorf("%s: %w", item, err)
		}
	}
	return nil
}

// boundSuperPackets bounds what the pod leaves to the kernel to segment; the attributes
// that make a veth pair do so on the host's side only.
func boundSuperPackets(h *netlink.Handle, pod netlink.Link, w *Wiring) error {
	if w.GSOMaxSize == 0 {
		return nil
	}
	if err := h.LinkSetGSOMaxSize(pod, w.GSOMaxSize); err != nil {
		return err
	}
	return h.LinkSetGSOMaxSegs(pod, w.GSOMaxSegs)
}

func addAddrs(h *netlink.Handle, link netlink.Link, addrs []*netlink.Addr) error {
	return each(addrs, func(a *netlink.Addr) error { return h.AddrAdd(link, a) })
}

// bringUpLoopback need not look for the interface: it is the first of every namespace
// (LOOPBACK_IFINDEX in the kernel's include/net/flow.h).
func bringUpLoopback(pod *netlink.Handle) error {
	return pod.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}})
}

// addPodRoute adds a route in the pod. Each attachment of a pod has the same IPv4 gateway on a
// link of its own, so the routes to it stand side by side; of any other two with one
// destination the kernel refuses the second.
func (k *Kernel) addPodRoute(r *netlink.Route) error {
	if r.Dst != nil && r.Dst.IP.Equal(gateway4.AsSlice()) {
		return k.pod.RouteAppend(r)
	}
	err := k.pod.RouteAdd(r)
	if errors.Is(err, unix.EEXIST) {
		return errors.New("another interface of the pod has a route to the same destination; list under ipam.routes in weft-cni's entry what pods reach by this one")
	}
	return err
}

// awaitReady waits for what the kernel does a little later: it notices the carrier
// (net/core/link_watch.c), and a worker adds the local routes of IPv6 addresses
// (addrconf_dad_work). What comes to the pod before is lost.
func (k *Kernel) awaitReady(w *Wiring) error {
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(200 * time.Microsecond) {
		ready, err := k.ready(w)
		if err != nil || ready {
			return err
		}
		if time.Now().After(deadline) {
			return errors.New("it still does not, after 2 s")
		}
	}
}

func (k *Kernel) ready(w *Wiring) (bool, error) {
	for _, addr := range w.Addresses {
		if is, err := isLocal(k.pod, addr); err != nil || !is {
			return false, err
		}
	}
	host, err := k.host.LinkByName(w.HostName)
	return err == nil && host.Attrs().OperState == netlink.OperUp, err
}

// nameAfterPod is for people alone: a name that is taken, by the veth of a pod of the same
// name that has not gone yet, is no error, nor is a kernel older than such names (5.5).
func nameAfterPod(host *netlink.Handle, veth netlink.Link, name string) error {
	if name == "" {
		return nil
	}
	err := host.LinkAddAltName(veth, name)
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

// RenameAfterPod takes from a complete veth the alternative name that former releases gave
// it, which was that of pod (NAMESPACE/NAME) alone.
func (k *Kernel) RenameAfterPod(v Veth, pod string) error {
	old := altNameOf("", v.Attachment, pod)
	if !v.Complete || !slices.Contains(v.altNames, old) {
		return nil
	}
	link, state, err := k.hostSide(v.Name)
	if err != nil || state < Incomplete {
		return err
	}
	err = k.host.LinkDelAltName(link, old)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) { // it is gone since
		return nil
	}
	if err == nil {
		err = nameAfterPod(k.host, link, altNameOf(altNamePrefix, v.Attachment, pod))
	}
	if err != nil {
		return fmt.Errorf("give %s a different alternative name than %s: %w", v.Name, old, err)
	}
	return nil
}

// Restore adds what the host side of w's veth lacks of its addresses and routes.
func (k *Kernel) Restore(w *Wiring, sources []netip.Addr) error {
	link, err := k.host.LinkByName(w.HostName)
	if err != nil {
		return err
	}
	for _, addr := range append(w.hostAddrs(), w.nodeAddrs(sources)...) {
		if err := k.host.AddrReplace(link, addr); err != nil {
			return fmt.Errorf("add the address %s to %s: %w", addr, w.HostName, err)
		}
	}
	for _, route := range w.hostRoutes(link.Attrs().Index, sources) {
		if err := k.restoreRoute(route); err != nil {
			return fmt.Errorf("add the route %s: %w", route, err)
		}
	}
	return nil
}

// restoreRoute leaves a route that leads elsewhere, as it is another pod's.
func (k *Kernel) restoreRoute(route *netlink.Route) error {
	err := k.host.RouteAdd(route)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	there, err := k.host.RouteGetWithOptions(route.Dst.IP, &netlink.RouteGetOptions{FIBMatch: true})
	if err == nil && len(there) > 0 && there[0].LinkIndex == route.LinkIndex && there[0].Protocol == route.Protocol {
		err = k.host.RouteReplace(route)
	}
	return err
}
