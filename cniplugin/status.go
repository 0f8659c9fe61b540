package cniplugin

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"weft/cniplugin/leases"
	"weft/cniplugin/wiring"
	"weft/internal/nodefile"
	"weft/ipam"
)

// Status reports whether the node is of use for pods. Runtimes ask every few seconds: it waits
// for no lock. Code 50 means that the leases can't be used, 51 that weftd has not forwarded
// for a while (nodefile.ForwardingGrace), so running pods don't reach other nodes either.
// What passes is no reason to fail: the kubelet has a node NotReady whose STATUS fails, and
// its pods are evicted. So a restart of weftd is none, and neither is a full pool.
func (p *Plugin) Status(args *skel.CmdArgs) error { return cniError(p.status(args)) }

func (p *Plugin) status(args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	if err := conf.IPAM.check(); err != nil {
		return err
	}
	node, err := wiring.ReadNode(conf.RunDir)
	if err == nil {
		err = forwards(conf.RunDir)
	}
	if err != nil {
		return withCode(types.ErrLimitedConnectivity, err)
	}
	store, err := conf.leases()
	if err != nil {
		return err
	}
	err = store.Available(leases.NodePool(node))
	if errors.Is(err, ipam.ErrExhausted) { // pods that go make room
		fmt.Fprintln(os.Stderr, "weft-cni: status: no pod can be added now:", err)
		return nil
	}
	return withCode(types.ErrPluginNotAvailable, err)
}

// forwards returns why weftd does not forward, or nil.
func forwards(runDir string) error {
	ago, err := nodefile.Forwarded(runDir)
	if err == nil && ago > nodefile.ForwardingGrace {
		err = fmt.Errorf("weftd has not forwarded for %s; `weft status` and its log say why", ago.Round(time.Second))
	}
	return err
}
