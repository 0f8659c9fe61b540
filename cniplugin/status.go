package cniplugin

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"weft/internal/nodefile"
	"weft/ipam"
)

// Status tells whether the node is of use for pods. Runtimes ask every few seconds: it waits
// for nobody. Code 50 means that the leases can't be used, 51 that weftd has not forwarded
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
	node, err := readNode(conf.RunDir)
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
	return available(store, NodePool(node))
}

// forwards returns why weftd does not forward, or nil.
func forwards(runDir string) error {
	ago, err := nodefile.Forwarded(runDir)
	if err == nil && ago > nodefile.ForwardingGrace {
		err = fmt.Errorf("weftd has not forwarded for %s; `weft status` and its log say why", ago.Round(time.Second))
	}
	return err
}

// available returns why leases can't be had. That none is free is said on stderr: pods that
// go make room.
func available(store *ipam.Store, pool ipam.Pool) error {
	err := store.Available(pool)
	if errors.Is(err, ipam.ErrExhausted) {
		fmt.Fprintln(os.Stderr, "weft-cni: status: no pod can be added now:", err)
		return nil
	}
	return withCode(types.ErrPluginNotAvailable, err)
}
