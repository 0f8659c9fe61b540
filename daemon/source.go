package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/control"
	"weft/control/snapshot"
	"weft/control/sources"
	"weft/internal/advertise"
	"weft/internal/config"
	"weft/internal/nodefile"
	"weft/peer"
)

// source is the control source and, where nodes register, what this one says of itself.
type source struct {
	sources.Source
	registry control.Registry // nil where one person lists all nodes
	config   config.Config
	log      *slog.Logger
	read     os.FileInfo // the snapshot that was read last; nil if there was none

	mu   sync.Mutex
	self control.Self
}

func newSource(c config.Config, key peer.Fingerprint, log *slog.Logger) (*source, error) {
	opened, err := sources.Open(c)
	if err != nil {
		return nil, err
	}
	s := &source{Source: opened, config: c, log: log}
	s.registry, _ = opened.(control.Registry)
	s.self = control.Self{Endpoint: netip.AddrPortFrom(netip.Addr{}, c.Listen.Port()), Addresses: c.Addresses, Key: key}
	return s, nil
}

// first returns the plan to start with. A file must be good now. Where nodes register, it
// is that of the snapshot, so that a node whose control source is away forwards; without
// one, first waits until the control source has listed this node.
// Next makes a plan of a State; waits receives why there is none yet.
func (s *source) first(ctx context.Context, next func(control.State) (*control.Plan, error), waits func(error)) (*control.Plan, error) {
	plan, err := s.known(ctx, next)
	if err == nil || s.registry == nil {
		return plan, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("snapshot of node list unusable", "error", err)
	}
	// The list of nodes may have come from elsewhere until now, or from another cluster's etcd.
	// The node's pods are the same.
	s.self.Held = s.had()
	return s.await(ctx, next, waits)
}

// known returns the plan to start with if there is one without waiting.
func (s *source) known(ctx context.Context, next func(control.State) (*control.Plan, error)) (plan *control.Plan, err error) {
	if s.registry == nil {
		state, err := s.Load(ctx)
		if err == nil {
			plan, err = next(state)
		}
		if err != nil {
			return nil, Unfit{err}
		}
		return plan, nil
	}
	s.read, _ = os.Stat(s.snapshot()) // before it is read: if it is replaced meanwhile, it is read again
	state, err := snapshot.Read(s.snapshot(), s.registry.Identity(), s.Origin())
	if err == nil {
		plan, err = next(state)
	}
	if err != nil {
		return nil, err
	}
	s.log.Info("node list taken from snapshot", "source", s.Origin(), "peers", len(plan.Peers))
	s.self.Held = plan.PodCIDRs // nothing registers yet
	return plan, nil
}

// renewed says whether there is another snapshot than the one that was read last.
func (s *source) renewed() bool {
	if s.registry == nil {
		return false
	}
	now, err := os.Stat(s.snapshot())
	return err == nil && (s.read == nil || !os.SameFile(now, s.read) || !now.ModTime().Equal(s.read.ModTime()))
}

// await runs the source until it emits a State that makes a plan.
func (s *source) await(ctx context.Context, next func(control.State) (*control.Plan, error), waits func(error)) (plan *control.Plan, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.log.Info("waiting for first node list", "source", s.Origin())
	waits(fmt.Errorf("waiting for the list of nodes from %s", s.Origin()))
	logged := ""
	err = s.Run(ctx, nil, func(state control.State, err error) {
		if plan != nil {
			return
		}
		if err == nil {
			plan, err = next(state)
		}
		if err == nil {
			cancel()
			return
		}
		if err.Error() != logged {
			logged = err.Error()
			s.log.Error("no node list yet", "error", err)
			waits(fmt.Errorf("waiting for the list of nodes from %s: %w", s.Origin(), err))
		}
	})
	if plan != nil {
		return plan, nil
	}
	return nil, errors.Join(err, ctx.Err())
}

// had returns the pod CIDRs that this node's pods got addresses from since it booted.
func (s *source) had() []netip.Prefix {
	node, err := nodefile.Read(s.config.RunDir)
	if err != nil || node.Name != s.config.Node {
		return nil
	}
	return node.PodCIDRs
}

func (s *source) snapshot() string { return filepath.Join(s.config.StateDir, snapshot.Name) }

// forget removes the snapshot: in it this node has a pod CIDR that may be another's now, and a
// restart would use it.
func (s *source) forget() error {
	if err := os.Remove(s.snapshot()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the snapshot of the nodes: %w", err)
	}
	return nil
}

// Run is Source's. Beside it, the address at which this node registers follows the host's.
func (s *source) Run(ctx context.Context, reload <-chan struct{}, emit func(control.State, error)) error {
	if s.registry == nil {
		return s.Source.Run(ctx, reload, emit)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.advertise(ctx) })
	group.Go(func() error { return s.Source.Run(ctx, reload, emit) })
	return group.Wait()
}

// advertise registers this node at the address by which others reach it, and follows that.
func (s *source) advertise(ctx context.Context) error {
	rule, listen := s.config.Advertise, s.config.Listen.Addr()
	if auto := rule == (advertise.Rule{}); auto && !listen.IsUnspecified() || auto && s.config.Control.Source == config.SourceKubernetes {
		addr := listen
		if listen.IsUnspecified() {
			addr = netip.Addr{} // the Node's InternalIP
		}
		s.register(func(self *control.Self) { self.Endpoint = netip.AddrPortFrom(addr, self.Endpoint.Port()) })
		return nil
	}
	last := ""
	return advertise.Watch(ctx, func() {
		addr, err := rule.Choose(advertise.Families(listen), s.config.ClusterCIDRs, []string{s.config.TUN.Name})
		if err != nil {
			if err.Error() != last {
				s.log.Error("own address unknown, last one kept", "advertise", rule.String(), "error", err)
			}
			last = err.Error()
			return
		}
		if addr.String() == last {
			return
		}
		last = addr.String()
		s.log.Info("own address registered", "address", addr, "advertise", rule.String())
		s.register(func(self *control.Self) { self.Endpoint = netip.AddrPortFrom(addr, self.Endpoint.Port()) })
	})
}

// reachable has the control source know with which pod CIDRs this node forwards, and why pods
// have had no network for a while, if that is so.
func (s *source) reachable(podCIDRs []netip.Prefix, down string) {
	s.mu.Lock()
	same := slices.Equal(s.self.Forwards, podCIDRs) && s.self.Down == down
	s.mu.Unlock()
	if s.registry != nil && !same {
		s.register(func(self *control.Self) { self.Forwards, self.Down = podCIDRs, down })
	}
}

// stranded has the control source know which pods no other node reaches.
func (s *source) stranded(pods []string) {
	s.mu.Lock()
	same := slices.Equal(s.self.Stranded, pods)
	s.mu.Unlock()
	if s.registry != nil && !same {
		s.register(func(self *control.Self) { self.Stranded = pods })
	}
}

// register changes what this node says of itself.
func (s *source) register(change func(*control.Self)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.self)
	// Kubernetes knows the node's address where weftd does not.
	if s.self.Endpoint.Addr().IsValid() || s.config.Control.Source == config.SourceKubernetes {
		s.registry.Register(s.self)
	}
}

// saveInterval is how old the snapshot may be while the list of nodes changes.
const saveInterval = 10 * time.Second

// saveNowAndThen keeps the applied list of nodes as the snapshot, where nodes register.
func (d *daemon) saveNowAndThen(ctx context.Context) error {
	if d.control.registry == nil {
		return nil
	}
	d.save()
	err := every(ctx, saveInterval, func() error {
		d.save()
		return nil
	})
	d.save()
	return err
}

// save writes the applied list of nodes as the snapshot, unless it is there already.
func (d *daemon) save() {
	if d.control.registry == nil {
		return
	}
	d.saving.Lock()
	defer d.saving.Unlock()
	d.mu.Lock()
	state, plan := d.engine.Snapshot(d.saved)
	d.mu.Unlock()
	if plan != d.saved && plan != nil {
		if err := snapshot.Write(d.control.snapshot(), d.control.registry.Identity(), state); err != nil {
			d.log.Error("snapshot of node list not written", "error", err, "retry", saveInterval)
			return
		}
	}
	d.saved = plan
}
