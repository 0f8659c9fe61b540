package cniplugin

import (
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"

	"weft/cniplugin/leases"
	"weft/cniplugin/wiring"
	"weft/ipam"
)

// Del detaches a pod. It asks for nothing that may be gone: neither weftd nor its
// description of the node, nor the pod's namespace, nor a lease. What is detached already is
// a success.
func (p *Plugin) Del(args *skel.CmdArgs) error { return cniError(p.del(args)) }

func (p *Plugin) del(args *skel.CmdArgs) error {
	req, err := parseRequest(args)
	if err != nil {
		return err
	}
	k, err := wiring.OpenHost()
	if err != nil {
		return err
	}
	defer k.Close()
	store, release, err := p.hold(req)
	if err != nil {
		return err
	}
	defer release()
	return p.detach(req, k, store, wiring.Absent)
}

// detach removes the veth, and only when that is certain gives back the lease. If there is
// no veth, absent says how it must have been.
func (p *Plugin) detach(req *request, k *wiring.Kernel, store *ipam.Store, absent wiring.VethState) error {
	was, err := k.Remove(wiring.HostName(req.attachment))
	if err != nil {
		return withCode(CodeWiring, fmt.Errorf("%w; %s keeps its lease until DEL succeeds", err, req.attachment))
	}
	if was == wiring.Absent {
		was = absent
	}
	ctx, cancel := p.waiting()
	defer cancel()
	return leases.End(ctx, store, req.attachment, was)
}
