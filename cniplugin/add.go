package cniplugin

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"weft/cniplugin/leases"
	"weft/cniplugin/wiring"
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
		return invalid("prevResult has %s in the pod already: weft-cni makes that interface itself; remove the plugin before weft-cni that made it",
			req.attachment.IfName)
	}
	k, err := wiring.OpenBoth(req.netns)
	if err != nil {
		return err
	}
	defer k.Close()
	node, err := wiring.ReadGuarded(req.conf.RunDir)
	if err != nil {
		return withCode(types.ErrTryAgainLater, err)
	}
	store, release, err := p.hold(req)
	if err != nil {
		return err
	}
	defer release()
	return p.attach(req, k, node, store, prev)
}

// attach does the work of ADD, by the process that holds the attachment: first the lease, then
// the veth and what hangs off it.
func (p *Plugin) attach(req *request, k *wiring.Kernel, node nodefile.Node, store *ipam.Store, prev *types100.Result) error {
	mtu, err := req.conf.mtuOn(node)
	if err != nil {
		return err
	}
	if err := clearTheWay(req, k); err != nil {
		return err
	}
	ctx, cancel := p.waiting()
	defer cancel()
	lease, err := store.Acquire(ctx, ipam.Lease{
		Attachment: req.attachment,
		Addresses:  req.wanted,
		Pod:        req.pod,
		Veth:       wiring.HostName(req.attachment),
		NetNS:      req.netns,
	}, leases.NodePool(node))
	if isRefusal(err) {
		return err
	}
	if err == nil {
		w := wiring.New(lease)
		w.MTU, w.GSOMaxSize, w.GSOMaxSegs = mtu, node.GSOMaxSize, node.GSOMaxSegs
		err = p.wire(req, k, w, node.Addresses, prev)
	}
	if err == nil {
		return nil
	}
	// A lease that could not be written may be there all the same.
	if undoErr := p.detach(req, k, store, wiring.Incomplete); undoErr != nil {
		return fmt.Errorf("%w; undoing it failed: %w", err, undoErr)
	}
	return err
}

// clearTheWay removes what a killed ADD left.
func clearTheWay(req *request, k *wiring.Kernel) error {
	name := wiring.HostName(req.attachment)
	state, err := k.Look(name)
	switch {
	case err != nil:
	case state == wiring.Foreign:
		err = fmt.Errorf("a link %s exists that is not weft's: rename or remove it", name)
	case state == wiring.Complete:
		return withCode(CodeAttached, fmt.Errorf("%s is already attached, by %s: DEL it first", req.attachment, name))
	case state == wiring.Incomplete:
		_, err = k.Remove(name)
	}
	return withCode(CodeWiring, err)
}

// isRefusal reports whether ipam gave no lease, and wrote nothing.
func isRefusal(err error) bool {
	return slices.ContainsFunc([]error{ipam.ErrExhausted, ipam.ErrRefused, ipam.ErrLocked, ipam.ErrCorrupt},
		func(refusal error) bool { return errors.Is(err, refusal) })
}

// wire makes what the attachment has in the kernel, and prints the result. own are the node's
// addresses.
func (p *Plugin) wire(req *request, k *wiring.Kernel, w *wiring.Wiring, own []netip.Addr, prev *types100.Result) error {
	if req.mac != nil {
		w.PodMAC = req.mac
	}
	if err := w.SetRoutes(req.conf.IPAM.Routes); err != nil {
		return withCode(types.ErrInvalidNetworkConfig, err)
	}
	sources, err := k.Sources(own)
	if err != nil {
		return withCode(CodeWiring, err)
	}
	for _, s := range k.Steps(w, sources) {
		if err := p.runStep(s); err != nil {
			return withCode(CodeWiring, fmt.Errorf("%s: %w", s.What, err))
		}
	}
	// A teardown that has not seen the veth removes what protects it, and this file before.
	if _, err := wiring.ReadNode(req.conf.RunDir); err != nil {
		return withCode(types.ErrTryAgainLater, err)
	}
	versioned, err := newResult(w, req, prev).GetAsVersion(req.conf.CNIVersion)
	if err != nil {
		return withCode(types.ErrIncompatibleCNIVersion, err)
	}
	if err := versioned.PrintTo(p.stdout); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	return nil
}

// newResult is what the plugins before have made, if any, and this one.
func newResult(w *wiring.Wiring, req *request, prev *types100.Result) *types100.Result {
	result := prev
	if result == nil {
		result = &types100.Result{}
	}
	result.CNIVersion = types100.ImplementedSpecVersion
	if !req.conf.DNS.IsEmpty() {
		result.DNS = req.conf.DNS
	}
	result.Interfaces = append(result.Interfaces,
		&types100.Interface{Name: w.HostName, Mac: w.HostMAC.String(), Mtu: w.MTU},
		&types100.Interface{Name: w.PodName, Mac: w.PodMAC.String(), Mtu: w.MTU, Sandbox: req.netns})
	for _, addr := range w.Addresses {
		result.IPs = append(result.IPs, &types100.IPConfig{
			Interface: new(len(result.Interfaces) - 1),
			Address:   *rtnetlink.HostNet(addr),
			Gateway:   wiring.GatewayOf(addr).AsSlice(),
		})
	}
	result.Routes = append(result.Routes, w.Routes...)
	return result
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
