package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"weft/control"
	"weft/encap"
	"weft/encap/vxlan"
	"weft/internal/config"
	"weft/internal/hostnet"
	"weft/internal/nodefile"
	"weft/router"
)

// daemon is what is in force at the moment. Its methods may be called from several
// goroutines.
type daemon struct {
	config  config.Config
	log     *slog.Logger
	router  *router.Router
	conns   []*encap.Conn
	host    *hostnet.Host
	hangups <-chan os.Signal // each asks to read the list of nodes again

	applying sync.Mutex // held while the host is changed: one change at a time

	mu         sync.Mutex // guards what follows
	plan       *control.Plan
	applied    time.Time // when plan came into force
	mtu        int       // of the TUN device, in bytes
	hostErr    error     // why the host is not as plan wants it
	rejected   error     // why the newest State is not in force
	rejections int
	ready      bool
}

func newDaemon(c config.Config, log *slog.Logger, r *router.Router, conns []*encap.Conn, hangups <-chan os.Signal) *daemon {
	return &daemon{config: c, log: log, router: r, conns: conns, host: hostnet.New(log), hangups: hangups}
}

// update puts the State that the control source emitted into force. If that can't
// be done, the last good one stays.
func (d *daemon) update(ctx context.Context, state control.State, err error) {
	var plan *control.Plan
	if err == nil {
		plan, err = control.NewPlan(state, planOptions(d.config))
	}
	if err != nil {
		d.log.Error("the new list of nodes is refused; the last good one stays in force", "error", err)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.rejected = err
		d.rejections++
		return
	}
	d.mu.Lock()
	same, mended := d.plan.Equal(plan), d.rejected != nil
	d.rejected = nil
	d.mu.Unlock()
	if same {
		if mended {
			d.log.Info("the list of nodes is again the one in force")
		}
		return
	}
	d.log.Info("a new list of nodes is in force", "peers", len(plan.Peers), "prefixes", plan.Table.Size())
	d.tell(ctx, d.apply(ctx, plan))
}

// tell logs that the host is not as it must be. The next turn of reapplyNowAndThen
// tries again.
func (d *daemon) tell(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		d.log.Error("the host is not as the list of nodes wants it", "error", err, "retry", reapplyInterval)
	}
}

// apply puts plan into force: first in the data path, so that no route leads a
// packet to a table that does not know where to send it, then on the host.
func (d *daemon) apply(ctx context.Context, plan *control.Plan) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	d.router.Publish(plan.Table)
	mtu, err := d.chooseMTU(plan)
	if err == nil {
		err = d.host.Apply(ctx, d.hostNetwork(plan, mtu))
	}
	if err == nil { // the plugin is told of nothing that does not hold
		err = nodefile.Write(d.config.RunDir, nodefile.Node{
			Name: d.config.Node, PodCIDRs: plan.PodCIDRs, Reserved: plan.NodeAddresses, TUN: d.config.TUN.Name, MTU: mtu,
			GSOMaxSize: encap.MaxSuperPacket, GSOMaxSegs: encap.MaxSegments})
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.plan != plan {
		d.plan, d.applied = plan, time.Now()
	}
	d.mtu, d.hostErr = mtu, err
	return err
}

// chooseMTU returns the size of the largest packet that fits the underlay with its
// encapsulation, unless one was configured.
func (d *daemon) chooseMTU(plan *control.Plan) (int, error) {
	if d.config.TUN.MTU > 0 {
		return d.config.TUN.MTU, nil
	}
	underlay, _, err := hostnet.UnderlayMTU(plan.Self.Endpoint.Addr())
	return underlay - vxlan.Overhead(plan.EndpointIPv6), err
}

func (d *daemon) hostNetwork(plan *control.Plan, mtu int) hostnet.Network {
	sources := make([]uint16, len(d.conns))
	for i, c := range d.conns {
		sources[i] = c.SourcePort()
	}
	return hostnet.Network{
		TUN:           d.config.TUN.Name,
		MTU:           mtu,
		GSOMaxSize:    encap.MaxSuperPacket,
		GSOMaxSegs:    encap.MaxSegments,
		Addresses:     plan.NodeAddresses,
		PodCIDRs:      plan.PodCIDRs,
		ClusterCIDRs:  plan.ClusterCIDRs,
		PeerCIDRs:     plan.PeerCIDRs,
		PeerAddresses: plan.PeerAddresses,
		Port:          d.config.Listen.Port(),
		SourcePorts:   sources,
	}
}

// reapplyNowAndThen compares the host with the Plan from time to time. The first time
// that it is in order, weftd is ready.
func (d *daemon) reapplyNowAndThen(ctx context.Context) error {
	ticker := time.NewTicker(reapplyInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			d.mu.Lock()
			plan, ready := d.plan, d.ready
			d.mu.Unlock()
			err := d.apply(ctx, plan)
			d.tell(ctx, err)
			if err == nil && !ready {
				if err := d.becomeReady(); err != nil {
					return err
				}
			}
		}
	}
}

// Stats, Peers and Prefixes tell what the data path has done and knows.
func (d *daemon) Stats() router.Stats { return d.router.Stats() }
func (d *daemon) Peers() int          { return d.router.Table().Peers() }
func (d *daemon) Prefixes() int       { return d.router.Table().Size() }

// UDP returns whether all lanes send runs, and how many datagrams were joined for them.
func (d *daemon) UDP() (gso bool, gro uint64) {
	gso = true
	for _, c := range d.conns {
		gso = gso && c.Runs()
		gro += c.Joined()
	}
	return gso, gro
}

// GuardDrops asks nft, which takes some milliseconds.
func (d *daemon) GuardDrops() (map[string]uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return d.host.Drops(ctx)
}

// Rejections returns how many States were refused, and whether the newest one was.
func (d *daemon) Rejections() (total int, newest bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rejections, d.rejected != nil
}

// Healthy returns why the host is not as it must be, or nil. That the lanes run
// needs no word: weftd ends with the first one that does not.
func (d *daemon) Healthy() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hostErr
}

// Ready returns why pods can't be wired yet, or nil.
func (d *daemon) Ready() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hostErr != nil {
		return d.hostErr
	}
	if !d.ready {
		return errors.New("weftd is starting")
	}
	return nil
}
