package cniplugin

import (
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// Status tells whether an ADD could succeed now. Runtimes ask every few seconds: it
// waits for nobody. Code 50 means that no pod can be added, 51 that weftd is not ready,
// so running pods may not reach other nodes either.
func (p *Plugin) Status(args *skel.CmdArgs) error { return cniError(p.status(args)) }

func (p *Plugin) status(args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	if err := conf.IPAM.check(); err != nil {
		return err
	}
	k, err := openHost()
	if err != nil {
		return withCode(types.ErrPluginNotAvailable, err)
	}
	defer k.close()
	node, err := readNode(conf.RunDir, k)
	if err != nil {
		return withCode(types.ErrLimitedConnectivity, err)
	}
	if !conf.IPAM.own() {
		ctx, cancel := p.waiting()
		defer cancel()
		_, err := conf.delegate(ctx, "STATUS", conf.stdin)
		return withCode(types.ErrPluginNotAvailable, err)
	}
	store, err := conf.leases()
	if err != nil {
		return err
	}
	return withCode(types.ErrPluginNotAvailable, store.Available(NodePool(node)))
}
