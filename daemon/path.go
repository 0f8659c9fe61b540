package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/control"
	"weft/daemon/engine"
	"weft/daemon/handover"
	"weft/encap"
	"weft/encap/probe"
	"weft/encap/sealed"
	"weft/encap/vxlan"
	"weft/internal/config"
	"weft/internal/warning"
	"weft/router"
	"weft/router/tun"
)

// path is the data path: the lanes, and the keys that they share.
type path struct {
	queues []tun.Queue
	conns  []*encap.Conn
	keys   *keys
	vxlan  *vxlan.Peers // nil where packets are sealed
	prober *probe.Prober
	router *router.Router
	ended  chan struct{} // closed when run has ended
}

// beginWith makes a plan the first one to apply, with peers that had roamed before, and returns which
// further addresses were proven.
func (d *daemon) beginWith(ctx context.Context, plan *control.Plan, roams []engine.Roam) engine.Proven {
	proven, had := d.restoreProven(), d.control.had()
	d.carryOut(ctx, d.decide(func(e *engine.Engine) engine.Decision { return e.Begin(plan, had, proven, roams) }))
	return proven
}

// usePath makes a data path with these lanes the one that forwards, for the plan that is to be
// applied. It goes on with the keys of a state, if there are some, and what is known of the paths.
func (d *daemon) usePath(p *path, proven engine.Proven, state *handover.State) (err error) {
	if err := p.conns[0].ShortBuffers(); err != nil {
		d.warn("buffers", &warning.Warning{Code: "udp_buffers", Text: err.Error()})
	}
	if err := os.MkdirAll(d.config.StateDir, 0o755); err != nil {
		return errors.Join(fmt.Errorf("make the state folder: %w", err), p.close())
	}
	d.mu.Lock()
	plan := d.engine.Next()
	d.mu.Unlock()
	if p.keys, err = newKeys(d.config, d.key, p.conns, d.log); err != nil {
		return errors.Join(err, p.close())
	}
	if p.keys == nil {
		p.vxlan = vxlan.NewPeers(len(p.conns))
	} else {
		p.keys.manager.Answer = d.answerPeer
		p.keys.manager.Restore(proven)
	}
	p.update(plan)
	if len(state.Keys) > 0 {
		if n, err := p.keys.manager.Resume(state.Keys); err != nil {
			d.log.Warn("keys not taken over, new ones are agreed on", "error", err)
		} else {
			d.log.Info("keys taken over", "peers", n)
		}
	}
	p.prober = probe.New(newProbeLink(d.config, p), len(p.conns))
	if p.keys == nil && d.config.UDP.GSO == config.GSOAuto { // with keys, the handshake compares
		p.prober.Runs = p.conns[0].Runs
	}
	p.prober.Restore(state.Narrow, state.RunsLost)
	if state.MTU > 0 { // or the next hand-over, before anything is applied, would lose what is restored
		p.updateProber(plan.Peers, state.MTU)
		d.mu.Lock()
		d.mtu = state.MTU
		d.mu.Unlock()
	}
	sendFrom(p.conns, plan.Self.Endpoint.Addr())
	p.router = newRouter(d.config, p, plan)
	p.restore(state.Counters)
	d.drops.restore(state.Counters.Logged, time.Now())
	p.ended = make(chan struct{})
	d.path.Store(p)
	return nil
}

// openLanes makes the device and the sockets.
func openLanes(ctx context.Context, c config.Config) (p *path, err error) {
	p = new(path)
	if p.queues, err = tun.Open(string(c.TUN.Driver), c.TUN.Name, c.Lanes()); err != nil {
		return nil, err
	}
	if err := tun.Persist(p.queues[0], true); err != nil {
		return nil, errors.Join(err, p.close())
	}
	if p.conns, err = encap.Listen(ctx, c.Listen, len(p.queues), sockets(c, p.queues)); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// sockets are the options of the sockets for some queues.
func sockets(c config.Config, queues []tun.Queue) encap.Options {
	joins, _ := queues[0].Takes() // joined datagrams are good for joined packets only
	return encap.Options{GRO: joins, Spread: spread(c), Single: c.UDP.GSO == config.GSOOff || c.UDP.GSO == config.GSOAuto && encap.LossyKernel() != "", Mark: c.Host.MarkMask.OwnDatagram()}
}

func newRouter(c config.Config, p *path, plan *control.Plan) *router.Router {
	lanes := make([]router.Lane, len(p.conns))
	for i := range lanes {
		lanes[i] = router.Lane{Queue: p.queues[i], Codec: p.codec(c, i), Conn: p.conns[i]}
	}
	return router.New(lanes, plan.Table)
}

// run forwards packets and agrees on keys until ctx is done. When it returns, nothing is under way
// any more: the lanes end last, so that they stand still for as short as possible.
func (p *path) run(ctx context.Context) error {
	defer close(p.ended)
	group, ctx := errgroup.WithContext(ctx)
	lanes, stop := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error {
		defer stop()
		return p.keys.run(ctx)
	})
	group.Go(func() error { return p.prober.Run(ctx) })
	group.Go(func() error { return p.router.Run(lanes) })
	return group.Wait()
}

// errPathEnded is why what an operator has asked for can't go on.
var errPathEnded = errors.New("another weftd was to take over meanwhile; try again")

// during returns a context that also ends when the data path does, with errPathEnded as the cause.
func (p *path) during(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-p.ended:
			cancel(errPathEnded)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// proven returns which further addresses peers have proven.
func (p *path) proven() engine.Proven {
	if p.keys == nil {
		return nil
	}
	return p.keys.manager.Proven()
}

// close ends the data path, with its device.
func (p *path) close() (err error) {
	if len(p.queues) > 0 {
		err = tun.Persist(p.queues[0], false)
	}
	for _, q := range p.queues {
		err = errors.Join(err, q.Close())
	}
	for _, c := range p.conns {
		err = errors.Join(err, c.Close())
	}
	return err
}

// followPeers sends datagrams where peers have roamed to, puts behind them the addresses that they
// have proven, and has the kernel know what MTU the paths have, until ctx is done.
func (d *daemon) followPeers(ctx context.Context, p *path) {
	go d.watchPaths(ctx, p.prober)
	if p.keys == nil {
		return
	}
	go d.proved(ctx, p.keys.manager)
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-p.keys.manager.Followed:
			d.roamed(ctx, m)
		}
	}
}

// spec is what a weftd must have like this one to go on with its data path.
func (d *daemon) spec() handover.Spec {
	return handover.Spec{
		Encapsulation: string(d.config.Encapsulation), Keys: sealed.ExportVersion,
		TUN: d.config.TUN.Name, Driver: string(d.config.TUN.Driver), Lanes: d.config.Lanes(),
		Listen: d.config.Listen, Mark: d.config.Host.MarkMask.OwnDatagram(),
	}
}

// handOut makes the lanes, which have ended, and the keys ready for another process. This one can
// use the keys no more, unless it takes them back.
func (d *daemon) handOut(p *path) *handover.State {
	s := &handover.State{Spec: d.spec(), Since: handover.Now(), Narrow: p.prober.Narrow(), RunsLost: p.prober.RunsLost()}
	d.mu.Lock()
	s.Roams, s.MTU = d.engine.Roams(), d.mtu
	d.mu.Unlock()
	if p.keys != nil {
		s.Keys = p.keys.peers.Export()
	}
	s.Counters = p.counters()
	s.Counters.Logged = d.drops.logged()
	for i, q := range p.queues {
		receiving, sending := p.conns[i].Files()
		s.Queues, s.Receiving, s.Sending = append(s.Queues, q.File()), append(s.Receiving, receiving), append(s.Sending, sending)
	}
	return s
}
