package cniplugin

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/nodefile"
	"weft/internal/rtnetlink"
	"weft/ipam"
)

// Add attaches a pod and prints the result. What an ADD that was killed left behind is
// replaced; an interface that is complete is left alone, and the call refused. An ADD
// that fails leaves neither veth nor lease.
func (p *Plugin) Add(args *skel.CmdArgs) error { return cniError(p.add(args)) }

func (p *Plugin) add(args *skel.CmdArgs) error {
	req, err := parseRequest(args)
	if err != nil {
		return err
	}
	if err := req.conf.IPAM.check(); err != nil {
		return err
	}
	prev, err := req.conf.prevResult()
	if err != nil {
		return err
	}
	if podInterface(prev, req) >= 0 {
		return invalid("prevResult has %s in the pod already: weft-cni makes that interface itself; put weft-cni before the plugin that made it, or remove that plugin",
			req.attachment.IfName)
	}
	k, err := openBoth(req.netns)
	if err != nil {
		return err
	}
	defer k.close()
	node, err := readGuarded(req.conf.RunDir)
	if err != nil {
		return withCode(types.ErrTryAgainLater, err)
	}
	least := minMTU
	if node.MTU < minMTU { // the cluster has no IPv6
		least = minMTU4
	}
	if req.conf.MTU != 0 && (req.conf.MTU < least || req.conf.MTU > node.MTU) {
		return invalid("mtu is %d: must be from %d to %d, the overlay's", req.conf.MTU, least, node.MTU)
	}
	store, release, err := p.hold(req)
	if err != nil {
		return err
	}
	defer release()
	return p.attach(req, k, node, store, prev)
}

// podInterface returns the index of the attachment's interface in a result, or -1.
func podInterface(result *types100.Result, req *request) int {
	if result == nil {
		return -1
	}
	return slices.IndexFunc(result.Interfaces, func(i *types100.Interface) bool {
		return i.Name == req.attachment.IfName && i.Sandbox == req.netns
	})
}

// attach does the work of ADD, by a process that holds the attachment.
func (p *Plugin) attach(req *request, k *kernel, node nodefile.Node, store *ipam.Store, prev *types100.Result) error {
	if err := clearTheWay(req, k); err != nil {
		return err
	}
	ctx, cancel := p.waiting()
	defer cancel()
	lease, err := store.Acquire(ctx, ipam.Lease{
		Attachment: req.attachment,
		Addresses:  req.wanted,
		Pod:        req.pod,
		Veth:       hostName(req.attachment),
		NetNS:      req.netns,
	}, NodePool(node))
	if isRefusal(err) {
		return err
	}
	if err == nil {
		err = p.wire(req, k, node, lease.Addresses, prev)
	}
	if err == nil {
		return nil
	}
	// A lease that could not be written may be there all the same.
	if undoErr := p.detach(req, k, store, incompleteVeth); undoErr != nil {
		return fmt.Errorf("%w; undoing it failed: %w", err, undoErr)
	}
	return err
}

// isRefusal tells that ipam gave no lease, and wrote nothing.
func isRefusal(err error) bool {
	return slices.ContainsFunc([]error{ipam.ErrExhausted, ipam.ErrRefused, ipam.ErrLocked, ipam.ErrCorrupt},
		func(refusal error) bool { return errors.Is(err, refusal) })
}

// wire makes what the attachment has in the kernel, and tells the runtime.
func (p *Plugin) wire(req *request, k *kernel, node nodefile.Node, addresses []netip.Addr, prev *types100.Result) error {
	w := newWiring(req, addresses)
	w.mtu, w.gsoMaxSize, w.gsoMaxSegs = node.MTU, node.GSOMaxSize, node.GSOMaxSegs
	if req.conf.MTU != 0 {
		w.mtu = req.conf.MTU
	}
	if err := w.setRoutes(req.conf.IPAM.Routes); err != nil {
		return err
	}
	own, err := k.sources(node.Addresses)
	if err != nil {
		return withCode(CodeWiring, err)
	}
	for _, s := range p.steps(w, k, own) {
		if err := p.runStep(s); err != nil {
			return withCode(CodeWiring, fmt.Errorf("%s: %w", s.what, err))
		}
	}
	return p.print(req, w.result(req.netns, req.conf.DNS, prev))
}

// clearTheWay removes what a killed ADD left. The alias tells: it is set last.
func clearTheWay(req *request, k *kernel) error {
	name := hostName(req.attachment)
	link, ours, err := k.hostSide(name)
	switch {
	case err != nil:
		return withCode(CodeWiring, err)
	case link == nil:
		return nil
	case !ours:
		return withCode(CodeWiring, fmt.Errorf("a link %s exists that is not weft's: rename or remove it", name))
	case link.Attrs().Alias != "":
		return withCode(CodeAttached, fmt.Errorf("%s is already attached, by %s: DEL it first", req.attachment, name))
	}
	_, err = k.removeHostSide(name)
	return withCode(CodeWiring, err)
}

// step is one step of the wiring.
type step struct {
	what string
	do   func() error
}

// steps returns the wiring in its order. Settings come before the links go up, routes
// can only come after, and the alias, which says that all is there, is the last.
func (p *Plugin) steps(w *wiring, k *kernel, own []netip.Addr) []step {
	veth := w.veth(int(k.podNS.Fd()))
	var pod netlink.Link
	return []step{
		{"make the veth (its name must be free in the pod)", func() error { return k.host.LinkAdd(veth) }},
		{"find the pod's interface", func() (err error) {
			pod, err = k.pod.LinkByName(w.podName)
			return err
		}},
		{"limit the pod's super-packets", func() error { return boundSuperPackets(k.pod, pod, w) }},
		{"set up the host side", func() error { return apply(p.sysctlRoot, w.hostSettings()) }},
		{"set up the pod's side", func() error {
			return k.podNS.Do(func(ns.NetNS) error { return apply(p.sysctlRoot, w.podSettings()) })
		}},
		{"add the pod's addresses", func() error { return addAddrs(k.pod, pod, w.podAddrs()) }},
		{"add the gateway's addresses", func() error { return addAddrs(k.host, veth, w.hostAddrs()) }},
		{"add the node's addresses", func() error { return addAddrs(k.host, veth, w.nodeAddrs(own)) }},
		{"bring up the host side", func() error { return k.host.LinkSetUp(veth) }},
		{"bring up the pod's side", func() error { return k.pod.LinkSetUp(pod) }},
		{"bring up the pod's loopback", func() error { return bringUpLoopback(k.pod) }},
		{"add the pod's neighbours", func() error { return each(w.podNeighbours(pod.Attrs().Index), k.pod.NeighSet) }},
		{"add the host's neighbours", func() error { return each(w.hostNeighbours(veth.Index), k.host.NeighSet) }},
		{"add the pod's routes", func() error { return each(w.podRoutes(pod.Attrs().Index), k.addPodRoute) }},
		// Adding fails where another veth has such a route: that pod holds the address,
		// whatever the leases say.
		{"add the routes to the pod", func() error { return each(w.hostRoutes(veth.Index, own), k.host.RouteAdd) }},
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
func boundSuperPackets(h *netlink.Handle, pod netlink.Link, w *wiring) error {
	if w.gsoMaxSize == 0 {
		return nil
	}
	if err := h.LinkSetGSOMaxSize(pod, w.gsoMaxSize); err != nil {
		return err
	}
	return h.LinkSetGSOMaxSegs(pod, w.gsoMaxSegs)
}

func addAddrs(h *netlink.Handle, link netlink.Link, addrs []*netlink.Addr) error {
	return each(addrs, func(a *netlink.Addr) error { return h.AddrAdd(link, a) })
}

// bringUpLoopback need not look for the interface: it is the first of every namespace
// (LOOPBACK_IFINDEX in the kernel's include/net/flow.h).
func bringUpLoopback(pod *netlink.Handle) error {
	return pod.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}})
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

// print writes the result in the version that the configuration asks for.
func (p *Plugin) print(req *request, result *types100.Result) error {
	versioned, err := result.GetAsVersion(req.conf.CNIVersion)
	if err != nil {
		return withCode(types.ErrIncompatibleCNIVersion, err)
	}
	if err := versioned.PrintTo(p.stdout); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	return nil
}

// result is what the plugins before have made, if any, and this one.
func (w *wiring) result(sandbox string, dns types.DNS, prev *types100.Result) *types100.Result {
	result := prev
	if result == nil {
		result = &types100.Result{}
	}
	result.CNIVersion = types100.ImplementedSpecVersion
	if !dns.IsEmpty() {
		result.DNS = dns
	}
	result.Interfaces = append(result.Interfaces,
		&types100.Interface{Name: w.hostName, Mac: w.hostMAC.String(), Mtu: w.mtu},
		&types100.Interface{Name: w.podName, Mac: w.podMAC.String(), Mtu: w.mtu, Sandbox: sandbox})
	for _, addr := range w.addresses {
		result.IPs = append(result.IPs, &types100.IPConfig{
			Interface: new(len(result.Interfaces) - 1),
			Address:   *rtnetlink.HostNet(addr),
			Gateway:   gatewayOf(addr).AsSlice(),
		})
	}
	result.Routes = append(result.Routes, w.routes...)
	return result
}
