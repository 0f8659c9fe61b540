package daemon

import (
	"context"
	"crypto/ed25519"
	"errors"

	"golang.org/x/sync/errgroup"

	"weft/control"
	"weft/daemon/engine"
	"weft/encap"
	"weft/encap/probe"
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
}

// openPath makes the TUN device, the sockets and the keys, for a router that starts with plan.
func (d *daemon) openPath(ctx context.Context, key ed25519.PrivateKey, plan *control.Plan) error {
	p := new(path)
	if err := p.openLanes(ctx, d.config); err != nil {
		return err
	}
	if err := p.conns[0].ShortBuffers(); err != nil {
		d.warn("buffers", &warning.Warning{Code: "udp_buffers", Text: err.Error()})
	}
	var err error
	if p.keys, err = newKeys(d.config, key, p.conns, d.log); err != nil {
		return errors.Join(err, p.close())
	}
	if p.keys != nil {
		p.keys.manager.Answer = d.answerPeer
	}
	proven := d.restoreProven(p.keys)
	had := d.control.had()
	d.carryOut(ctx, d.decide(func(e *engine.Engine) engine.Decision { return e.Begin(plan, had, proven) }))
	if p.keys == nil {
		p.vxlan = vxlan.NewPeers(len(p.conns))
	}
	p.prober = probe.New(newProbeLink(d.config, p), len(p.conns))
	p.router = newRouter(d.config, p, plan)
	d.path.Store(p)
	return nil
}

// openLanes makes the device and the sockets.
func (p *path) openLanes(ctx context.Context, c config.Config) (err error) {
	if p.queues, err = tun.Open(string(c.TUN.Driver), c.TUN.Name, c.Lanes()); err != nil {
		return err
	}
	if err := tun.Persist(p.queues[0], true); err != nil {
		return errors.Join(err, p.close())
	}
	if p.conns, err = encap.Listen(ctx, c.Listen, len(p.queues), sockets(c, p.queues)); err != nil {
		return errors.Join(err, p.close())
	}
	return nil
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

// forward forwards packets until ctx is done, or a lane fails.
func (d *daemon) forward(ctx context.Context) error {
	p := d.path.Load()
	go d.watchPaths(ctx, p.prober)
	go d.followPeers(ctx, p)
	return p.run(ctx)
}

// run forwards packets and agrees on keys until ctx is done. When it returns, nothing is under way
// any more: the lanes end last, so that they stand still for as short as possible.
func (p *path) run(ctx context.Context) error {
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

// closePath closes the data path if there is one.
func (d *daemon) closePath() error {
	if p := d.path.Load(); p != nil {
		return p.close()
	}
	return nil
}

// followPeers sends datagrams where peers have roamed to, and puts behind them the addresses that
// they have proven, until ctx is done.
func (d *daemon) followPeers(ctx context.Context, p *path) {
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
