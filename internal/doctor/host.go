package doctor

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"

	"weft/control"
	"weft/control/sources"
	"weft/internal/advertise"
	"weft/internal/alone"
	"weft/internal/config"
	"weft/internal/hostcheck"
	"weft/internal/hostnet"
	"weft/internal/nodefile"
	"weft/internal/nodekey"
	"weft/internal/status"
	"weft/internal/warning"
)

// host holds what several checks need. Each part is read once.
type host struct {
	Input

	prerequisites hostnet.Prerequisites

	// running says that a weftd uses the run directory; report is its own account, nil if
	// reportErr says why there is none.
	running   bool
	lockErr   error
	report    *status.Report
	reportErr error

	// node is what weftd wrote since the host booted, unless nodeErr says why there is nothing.
	node    nodefile.Node
	nodeErr error

	// obstacles are other programs' filters and rules, list what the control source says.
	obstacles func() []warning.Warning
	list      func() list
}

// list is what the control source says, and the plan of it.
type list struct {
	source  sources.Source
	state   control.State
	loadErr error
	plan    *control.Plan
	planErr error
}

func newHost(ctx context.Context, in Input) *host {
	h := &host{Input: in, prerequisites: hostnet.Look()}
	h.obstacles = sync.OnceValue(func() []warning.Warning { return h.needs().Look(ctx) })
	h.list = sync.OnceValue(func() list { return h.load(ctx) })
	if in.ConfigErr != nil {
		return h
	}
	h.running, h.lockErr = alone.Held(in.Config.RunDir)
	if h.running {
		report, err := status.Fetch(ctx, in.Socket)
		if h.reportErr = err; err == nil {
			h.report = &report
		}
	}
	h.node, h.nodeErr = nodefile.Read(in.Config.RunDir)
	return h
}

// began says that weftd has run here since the host booted, so far that pods could be added.
func (h *host) began() bool { return h.nodeErr == nil }

// needs is what other programs must let pass. Of a node that has no pod CIDRs yet, any address
// of the cluster may become a pod's.
func (h *host) needs() hostcheck.Host {
	pods := h.Config.ClusterCIDRs
	switch {
	case h.report != nil && len(h.report.PodCIDRs) > 0:
		pods = h.report.PodCIDRs
	case h.began() && len(h.node.PodCIDRs) > 0:
		pods = h.node.PodCIDRs
	}
	return hostcheck.Host{
		TUN: h.Config.TUN.Name, Port: h.Config.Listen.Port(), ClusterCIDRs: h.Config.ClusterCIDRs, PodCIDRs: pods,
		AcceptChain: h.Config.Host.AcceptForwardChain,
	}
}

// load asks the control source.
func (h *host) load(ctx context.Context) (l list) {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	if l.source, l.loadErr = sources.Open(h.Config); l.loadErr != nil {
		return l
	}
	if l.state, l.loadErr = l.source.Load(ctx); l.loadErr != nil {
		return l
	}
	options := control.Options{Node: h.Config.Node, ClusterCIDRs: h.Config.ClusterCIDRs}
	if h.Config.Encapsulation == config.EncapsulationSealed {
		if key, err := nodekey.Load(h.Config.KeyFile); err == nil { // checkNodeKey reports why not
			options.Key = nodekey.FingerprintOf(key.Public().(ed25519.PublicKey))
		}
	}
	l.plan, l.planErr = control.NewPlan(l.state, options)
	return l
}

// errListUnusable says that this node's address is unknown for a reason that other checks give.
var errListUnusable = errors.New("the list of nodes is not usable")

// registers says that the control source is one in which nodes register themselves.
func (h *host) registers() bool { return h.Config.Control.Source != config.SourceFile }

// underlay returns this node's address among nodes.
func (h *host) underlay() (netip.Addr, error) {
	rule, listen := h.Config.Advertise, h.Config.Listen.Addr()
	auto := rule == advertise.Rule{}
	switch {
	case auto && !listen.IsUnspecified() && h.registers():
		return listen, nil
	case !h.registers() || auto && h.Config.Control.Source == config.SourceKubernetes: // the list has it
		l := h.list()
		if l.plan == nil {
			return netip.Addr{}, errListUnusable
		}
		return l.plan.Self.Endpoint.Addr(), nil
	}
	return rule.Choose(advertise.Families(listen), h.Config.ClusterCIDRs, []string{h.Config.TUN.Name})
}

// checked are the codes that warnings of a running weftd need not repeat.
func checked(code string) bool {
	return slices.ContainsFunc(checks, func(c check) bool { return c.code == code })
}

// warnings are those of the running weftd that no check is about.
func (h *host) warnings() (all []Finding) {
	if h.report == nil {
		return nil
	}
	for _, w := range h.report.Warnings {
		if !checked(w.Code) {
			for _, f := range of(Warning, w.Text) {
				f.Code = w.Code
				all = append(all, f)
			}
		}
	}
	return all
}

// path returns the path of a file of the host's.
func (h *host) path(name string) string { return filepath.Join(h.Root, name) }
