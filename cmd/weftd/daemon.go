package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"weft/control"
	"weft/encap"
	"weft/internal/config"
	"weft/internal/hostnet"
	"weft/router"
	"weft/router/tun"
)

// unfit is an error that an operator must mend before weftd can start at all: of
// the host, or in the list of nodes.
type unfit struct{ error }

func (u unfit) Unwrap() error { return u.error }

// reapplyInterval is how often the host's network is compared with the Plan, so
// that what another program changed without an event (see hostnet.Host.Watch) comes
// back, and what failed is tried again.
const reapplyInterval = 10 * time.Second

// serve runs the daemon until ctx is done. When it returns, the device, the routes
// and the nftables table are gone; the pods' leases are not.
func serve(ctx context.Context, c config.Config, log *slog.Logger) error {
	// As early as possible and never undone: a SIGHUP that nobody takes ends the
	// process, in the middle of what it does to the host.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	if err := hostnet.Check(); err != nil {
		return unfit{err}
	}
	options, key, err := identify(c)
	if err != nil {
		return unfit{err}
	}
	source, err := newSource(c, options.Key, log)
	if err != nil {
		return unfit{err}
	}
	alone, err := beAlone()
	if err != nil {
		return err
	}
	defer alone.Close()
	// Before this node registers: the others would send to it what another program gets.
	if err := encap.CheckFree(ctx, c.Listen); err != nil {
		return err
	}
	d := newDaemon(c, log, hangups)
	d.control, d.guard.Options, d.guard.HoldKeys = source, options, c.Control.TrustKeyChange == config.TrustNever
	plan, err := source.first(ctx, &d.guard)
	if err != nil {
		if ctx.Err() != nil { // weftd was told to end while it waited
			return nil
		}
		return err
	}
	for _, dir := range []string{c.RunDir, c.StateDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make weft's folders: %w", err)
		}
	}
	conns, queues, err := openLanes(ctx, c)
	if err != nil {
		return err
	}
	d.conns = conns
	if err := conns[0].ShortBuffers(); err != nil {
		log.Warn("small UDP socket buffers", "error", err)
	}
	if d.keys, err = newKeys(key, conns, log); err != nil {
		return err
	}
	d.router = newRouter(c, d.keys, conns, queues, plan)
	d.list(plan)
	return d.run(ctx)
}

func openLanes(ctx context.Context, c config.Config) ([]*encap.Conn, []tun.Queue, error) {
	queues, err := tun.Open(string(c.TUN.Driver), c.TUN.Name, c.Lanes())
	if err != nil {
		return nil, nil, err
	}
	joins, _ := queues[0].Takes() // joined datagrams are good for joined packets only
	conns, err := encap.Listen(ctx, c.Listen, len(queues), encap.Options{GRO: joins, Spread: spread(c), Single: c.UDP.GSO == config.GSOOff || c.UDP.GSO == config.GSOAuto && thisKernelLosesRuns() != "", Mark: c.Host.MarkMask.OwnDatagram()})
	if err != nil {
		for _, q := range queues {
			err = errors.Join(err, q.Close())
		}
		return nil, nil, err
	}
	return conns, queues, nil
}

func newRouter(c config.Config, k *keys, conns []*encap.Conn, queues []tun.Queue, plan *control.Plan) *router.Router {
	lanes := make([]router.Lane, len(conns))
	for i := range lanes {
		lanes[i] = router.Lane{Queue: queues[i], Codec: codec(c, k, i, len(lanes)), Conn: conns[i]}
	}
	return router.New(lanes, plan.Table)
}

// run brings the node up, follows the control source, and takes the node down again.
func (d *daemon) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.router.Run(ctx) }) // owns the lanes: closes them in any case
	group.Go(func() error { return d.keys.run(ctx, d.follow) })
	group.Go(func() error {
		err := d.up(ctx, group)
		if ctx.Err() != nil { // weftd was told to end, or another part of it has said why it ends
			return nil
		}
		return err
	})
	err := group.Wait()

	_, _ = sd.SdNotify(false, sd.SdNotifyStopping)
	return errors.Join(err, d.down())
}

// up brings the host into order, and starts what goes on beside forwarding.
func (d *daemon) up(ctx context.Context, group *errgroup.Group) error {
	// What can't be done now is tried again later. One route that is in another's way
	// must not cost the node its other peers, nor a restart its guard.
	applyErr := d.apply(ctx)
	d.tell(ctx, applyErr)
	d.reconcile(ctx) // before any pod is added: what was leased before a reboot is free again
	if err := d.serveStatus(ctx, group); err != nil {
		return err
	}
	if err := d.serveMetrics(ctx, group); err != nil {
		return err
	}
	reload := make(chan struct{}, 1)
	group.Go(func() error { return forwardHangups(ctx, d.hangups, reload) })
	group.Go(func() error {
		return d.control.Run(ctx, reload, func(s control.State, err error) { d.update(ctx, s, err) })
	})
	group.Go(func() error { return d.saveNowAndThen(ctx) })
	group.Go(func() error { return d.mend(ctx) })
	group.Go(func() error { return d.reapplyNowAndThen(ctx) })
	group.Go(func() error { return d.reconcileNowAndThen(ctx, reconcileInterval) })
	group.Go(func() error { return d.warnNowAndThen(ctx) })
	group.Go(func() error { return d.lookAtOthers(ctx) })
	group.Go(func() error { return logDrops(ctx, d.Stats, d.log) })
	if applyErr == nil {
		d.becomeReady(ctx)
	}
	return nil
}

// becomeReady tells everyone who waits for it that pods can be wired. Without a conflist no
// new ones can, but those that there are have their network.
func (d *daemon) becomeReady(ctx context.Context) {
	err := d.refreshConflist(ctx)
	d.mu.Lock()
	d.starting = err
	podCIDRs := d.plan.PodCIDRs
	d.mu.Unlock()
	if err != nil {
		return
	}
	d.log.Info("forwarding", "encapsulation", d.config.Encapsulation, "listen", d.config.Listen,
		"tun", d.config.TUN.Name, "driver", d.config.TUN.Driver, "lanes", d.config.Lanes(),
		"mtu", d.report().TUN.MTU, "peers", d.Peers())
	d.control.reachable(podCIDRs, "")
	_, _ = sd.SdNotify(false, sd.SdNotifyReady+"\nSTATUS=forwarding") // without systemd there is nobody to notify
}

// down undoes up. It has its own time: the context that ended weftd is over.
func (d *daemon) down() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := d.host.Remove(ctx)
	d.log.Info("stopped")
	return err
}

// forwardHangups turns SIGHUP into a reload.
func forwardHangups(ctx context.Context, hangups <-chan os.Signal, reload chan<- struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangups:
			select {
			case reload <- struct{}{}:
			default: // one is waiting already
			}
		}
	}
}
