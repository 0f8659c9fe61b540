package cniplugin

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"weft/cniplugin/wiring"
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
	if _, err := wiring.ReadGuarded(req.conf.RunDir); err != nil {
		return withCode(types.ErrTryAgainLater, err)
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
	k, err := wiring.OpenBoth(req.netns)
	if err != nil {
		return err
	}
	defer k.Close()
	w := wiring.New(lease)
	claim, missing := compareResult(w, req, result)
	inKernel, err := k.Missing(w, claim)
	if err != nil {
		return withCode(CodeWiring, err)
	}
	if missing = append(missing, inKernel...); len(missing) > 0 {
		return withCode(CodeIncomplete, fmt.Errorf("%s: %s", req.attachment, strings.Join(missing, "; ")))
	}
	return nil
}

// compareResult compares the lease with prevResult. It returns what that says of the pod's
// interface, and gives w the routes that ADD made: those by weft's gateways.
func compareResult(w *wiring.Wiring, req *request, result *types100.Result) (claim wiring.Claim, missing []string) {
	at := podInterface(result, req)
	if at < 0 {
		return claim, []string{fmt.Sprintf("prevResult has no interface %s in %s", w.PodName, req.netns)}
	}
	for _, r := range result.Routes {
		if gw := rtnetlink.Addr(r.GW); gw == wiring.GatewayOf(gw) {
			w.Routes = append(w.Routes, r)
		}
	}
	var given []netip.Addr
	for _, ip := range result.IPs {
		if ip.Interface != nil && *ip.Interface == at {
			addr := rtnetlink.Addr(ip.Address.IP)
			given = append(given, addr)
			if !slices.Contains(w.Addresses, addr) {
				missing = append(missing, fmt.Sprintf("%s of prevResult is not leased", addr))
			}
		}
	}
	for _, addr := range w.Addresses {
		if !slices.Contains(given, addr) {
			missing = append(missing, fmt.Sprintf("%s is leased, but not in prevResult", addr))
		}
	}
	pod := result.Interfaces[at]
	return wiring.Claim{MAC: pod.Mac, MTU: pod.Mtu}, missing
}
