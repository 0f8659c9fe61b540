// Package daemon is weftd: it brings a node up, applies what its control source lists, and answers
// operators and probes.
package daemon

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"weft/control"
	"weft/daemon/engine"
	"weft/daemon/handover"
	"weft/encap"
	"weft/internal/config"
	"weft/internal/events"
	"weft/internal/hostnet"
	"weft/internal/status"
	"weft/internal/version"
)

// Unfit is an error that an operator must repair before weftd can start at all: of
// the host, or in the list of nodes.
type Unfit struct{ error }

func (u Unfit) Unwrap() error { return u.error }

// reapplyInterval is how often the host's network is compared with the Plan, so
// that what another program changed without an event (see hostnet.Host.Watch) comes
// back, and what failed is tried again.
const reapplyInterval = 10 * time.Second

// retryInterval is how often weftd tries again what its start can't do without.
const retryInterval = time.Second

// Run runs the daemon until ctx is done, or another one has taken over from it. The order is that of
// docs/DESIGN.md, "A node's life": what protects pods comes first and stays when Run returns; what
// can fail for a while is tried until it succeeds. After ErrTakeBack, the caller starts the program again.
func Run(ctx context.Context, c config.Config, s Succession, log *slog.Logger) error {
	// As early as possible and never undone: a SIGHUP without a handler ends the process, in
	// the middle of what it does to the host.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	upgrades := make(chan os.Signal, 1)
	signal.Notify(upgrades, syscall.SIGUSR2)
	if err := hostnet.Check(); err != nil {
		return Unfit{err}
	}
	d := newDaemon(c, log, hangups)
	if err := d.checkOverlap(); err != nil {
		return Unfit{err}
	}
	before, err := d.succeed(ctx, s.Takeover)
	if err != nil {
		return err
	}
	d.log.Info("weftd started", "version", version.Version)
	err = d.end(d.runAll(ctx, upgrades, before))
	d.lock.Close()
	if d.replaced && err == nil && s.Linger {
		return d.linger(ctx)
	}
	return err
}

// runAll runs all parts until ctx is done, or one of them ends.
func (d *daemon) runAll(ctx context.Context, upgrades <-chan os.Signal, before *predecessor) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.warnNowAndThen(ctx) })
	group.Go(func() error { return startSuccessors(ctx, upgrades, d.log) })
	group.Go(func() error {
		err := d.run(ctx, group, before)
		if ctx.Err() != nil { // weftd is to end, or another part of it has said why it ends
			return nil
		}
		return err
	})
	return group.Wait()
}

// run brings the node up, and starts all that goes on until ctx is done.
func (d *daemon) run(ctx context.Context, group *errgroup.Group, before *predecessor) error {
	inherited, err := d.inherit(ctx, before)
	if err != nil {
		return err // the weftd before goes on, and serves
	}
	group.Go(func() error {
		d.awaitEnd(ctx, before) // until then the sockets are the other weftd's
		d.serveStatus(ctx, group)
		d.serveMetrics(ctx, group)
		return nil
	})
	if !inherited {
		if err := d.prepare(ctx, before); err != nil {
			return err
		}
	}
	d.startLanes(ctx, group)
	d.serveEcho(ctx, group)
	if inherited { // until now behind the guard of the weftd before
		d.log.Info("data path taken over", "lanes", d.config.Lanes(), "gap", (handover.Now() - before.since).Round(100*time.Microsecond))
		if err := d.protect(ctx); err != nil {
			return err
		}
	}
	return d.up(ctx, group)
}

// prepare makes the data path, behind a guard.
func (d *daemon) prepare(ctx context.Context, before *predecessor) error {
	if err := d.protect(ctx); err != nil {
		return err
	}
	if err := d.identify(); err != nil {
		return err
	}
	// Before this node registers: the others would send to it what another program gets.
	if err := d.awaitPort(ctx); err != nil {
		return err
	}
	if before.plan == nil {
		var err error
		if before.plan, err = d.control.first(ctx, d.first, d.waits); err != nil {
			return err
		}
	}
	p, err := openLanes(ctx, d.config)
	if err != nil {
		return err
	}
	return d.usePath(p, d.beginWith(ctx, before.plan, nil), new(handover.State))
}

// protect makes the guard stand, and tries until it does. Before, weftd does nothing. The container
// runtime is started after weftd, and may have to run what has the list of nodes, the API server
// for example: so systemd learns of it.
func (d *daemon) protect(ctx context.Context) error {
	n := d.configured()
	err := d.until(ctx, "protect the host", func() error { return d.host.Protect(ctx, n) })
	if err == nil {
		_, _ = sd.SdNotify(false, sd.SdNotifyReady+"\nSTATUS=protected, not forwarding yet")
	}
	return err
}

// identify finds out who this node is, and where the list of nodes comes from, unless that is known.
func (d *daemon) identify() error {
	if d.control != nil {
		return nil
	}
	options, key, err := identify(d.config)
	if err != nil {
		return Unfit{err}
	}
	source, err := newSource(d.config, options.Key, d.log)
	if err != nil {
		return Unfit{err}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.key, d.control = key, source
	d.engine.Configure(options, d.config.Control.TrustKeyChange == config.TrustNever)
	return nil
}

// awaitPort waits until the UDP port is free.
func (d *daemon) awaitPort(ctx context.Context) error {
	return d.until(ctx, "open the UDP port", func() error { return named(encap.CheckFree(ctx, d.config.Listen), d.config.Listen) })
}

// until calls do each second until it succeeds or ctx is done, and says meanwhile why weftd
// is not ready.
func (d *daemon) until(ctx context.Context, what string, do func() error) error {
	last := ""
	for {
		err := do()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if err.Error() != last {
			last = err.Error()
			d.log.Error("start delayed", "step", what, "error", err, "retry", retryInterval)
			d.waits(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryInterval):
		}
	}
}

// waits says why weftd does not forward yet.
func (d *daemon) waits(why error) {
	d.mu.Lock()
	d.engine.Waits(why)
	d.mu.Unlock()
	_, _ = sd.SdNotify(false, "STATUS=not forwarding: "+strings.ReplaceAll(why.Error(), "\n", "; "))
}

// first is guard.Next for the State that weftd starts with.
func (d *daemon) first(state control.State) (*control.Plan, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.engine.First(state, time.Now())
}

// up applies the plan to the host, and starts what goes on beside forwarding.
func (d *daemon) up(ctx context.Context, group *errgroup.Group) error {
	// weftd tries failed steps again later. One route that conflicts with another program's
	// must not cost the node its other peers.
	applyErr := d.apply(ctx)
	d.reconcile(ctx) // before any pod is added: what was leased before a reboot is free again
	reload := make(chan struct{}, 1)
	group.Go(func() error { return d.forwardHangups(ctx, reload) })
	group.Go(func() error {
		return d.control.Run(ctx, reload, func(s control.State, err error) { d.update(ctx, s, err) })
	})
	group.Go(func() error { return d.saveNowAndThen(ctx) })
	group.Go(func() error { return d.watchHost(ctx) })
	group.Go(func() error { return d.reapplyNowAndThen(ctx) })
	group.Go(func() error { return d.reconcileNowAndThen(ctx, reconcileInterval) })
	group.Go(func() error {
		d.lookAtOthers(ctx)
		return nil
	})
	group.Go(func() error { return d.drops.run(ctx) })
	group.Go(func() error {
		return d.rates.run(ctx, func() map[string]status.Traffic { return d.view().traffic })
	})
	if applyErr == nil {
		d.becomeReady(ctx)
	}
	return nil
}

// becomeReady reports that pods can be added. Without a conflist no
// new ones can, but those that there are have their network.
func (d *daemon) becomeReady(ctx context.Context) {
	err := d.refreshConflist(ctx)
	do := d.decide(func(e *engine.Engine) engine.Decision { return e.Ready(err) })
	if err != nil {
		return
	}
	d.log.Info("forwarding", "encapsulation", d.config.Encapsulation, "listen", d.config.Listen,
		"tun", d.config.TUN.Name, "driver", d.config.TUN.Driver, "lanes", d.config.Lanes(),
		"mtu", d.report().TUN.MTU, "peers", d.Peers())
	d.carryOut(ctx, do)
	_, _ = sd.SdNotify(false, "STATUS=forwarding")
}

// forwardHangups turns SIGHUP into a reload.
func (d *daemon) forwardHangups(ctx context.Context, reload chan<- struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.hangups:
			d.log.Log(ctx, events.LevelQuiet, "reload requested")
			select {
			case reload <- struct{}{}:
			default: // one is waiting already
			}
		}
	}
}
