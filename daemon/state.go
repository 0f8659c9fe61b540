package daemon

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"weft/cniplugin/conflist"
	"weft/control"
	"weft/daemon/engine"
	"weft/daemon/handover"
	"weft/encap"
	"weft/encap/overhead"
	"weft/encap/sealed"
	"weft/internal/config"
	"weft/internal/events"
	"weft/internal/hostnet"
	"weft/internal/nftable"
	"weft/internal/nodefile"
	"weft/internal/status"
	"weft/internal/warning"
)

// daemon is the state of a running weftd. Its methods may be called from several
// goroutines.
type daemon struct {
	leases *podLeases
	others others

	config    config.Config
	log       *slog.Logger
	journal   *events.Journal // of what is logged
	drops     *dropWatch
	rates     rateWatch
	host      *hostnet.Host
	lock      *os.File             // of the run directory
	key       ed25519.PrivateKey   // this node's; nil where packets are not sealed
	control   *source              // set before the data path
	path      atomic.Pointer[path] // nil until weftd has its device and its sockets
	stopLanes func() error         // ends forwarding, and returns why it had ended before; nil until it begins
	successor *handover.Request    // of the weftd that goes on in this one's place
	socket    string               // of status, to be removed at the end; empty until it is this weftd's

	conflist *conflist.Writer

	hangups <-chan os.Signal // each asks to read the list of nodes again

	lists *rate.Limiter // bounds what is logged about lists of nodes

	applying  sync.Mutex // held while the host or the data path is changed: one change at a time
	capturing sync.Mutex // held while an operator captures packets
	replaced  bool       // another weftd changes the host now; guarded by applying

	saving sync.Mutex
	saved  *control.Plan // whose list of nodes is the snapshot; guarded by saving

	mu     sync.Mutex                 // guards what follows
	raised map[string]warning.Warning // by subject
	found  []warning.Warning          // when weftd last looked at the host
	engine *engine.Engine
	mtu    int // of the TUN device, in bytes

	conflistErr error // why the conflist is not as it must be
}

func newDaemon(c config.Config, log *slog.Logger, hangups <-chan os.Signal) *daemon {
	journal := events.New(time.Now())
	log = slog.New(journal.Handler(log.Handler()))
	d := &daemon{leases: newPodLeases(c, log), config: c, log: log, journal: journal, host: hostnet.New(log), conflist: conflist.New(c, log), hangups: hangups,
		raised: map[string]warning.Warning{}, lists: rate.NewLimiter(1, 30), engine: engine.New(nodefile.ForwardingGrace), conflistErr: errNotYet}
	d.drops = newDropWatch(log, d.Stats, hostnet.Drops)
	return d
}

// decide has the engine take an event.
func (d *daemon) decide(event func(*engine.Engine) engine.Decision) engine.Decision {
	d.mu.Lock()
	defer d.mu.Unlock()
	return event(d.engine)
}

// carryOut does what the engine has decided.
func (d *daemon) carryOut(ctx context.Context, do engine.Decision) {
	if do.Withdraw {
		d.applying.Lock() // or one that is under way would write the pod CIDR again
		if !d.replaced {
			_ = d.withdrawPodCIDRs() // apply says why it fails, and tries again
		}
		d.applying.Unlock()
	}
	for _, l := range do.Logs {
		switch {
		case l.Quiet:
			d.log.Log(context.Background(), events.LevelQuiet, l.Message, l.Args...)
		case !l.Limited || d.lists.Allow():
			d.log.Log(context.Background(), l.Level, l.Message, l.Args...)
		}
	}
	d.publish(do.Publish)
	if do.Apply {
		_ = d.apply(ctx) // it has logged that
	}
}

// publish has the control source publish whether this node forwards, if that is news.
func (d *daemon) publish(news *engine.Reach) {
	if news != nil {
		d.control.reachable(news.PodCIDRs, news.Down)
	}
}

// update takes what the control source emits.
func (d *daemon) update(ctx context.Context, state control.State, err error) {
	d.carryOut(ctx, d.decide(func(e *engine.Engine) engine.Decision { return e.List(state, err, time.Now()) }))
}

// withdrawPodCIDRs takes this node's pod CIDRs from the plugin, and from the next weftd.
func (d *daemon) withdrawPodCIDRs() error {
	return errors.Join(nodefile.Remove(d.config.RunDir), d.control.forget())
}

// confirm accepts the removal of the peers that the control source lists no more.
func (d *daemon) confirm(ctx context.Context) (status.Confirmation, error) {
	d.mu.Lock()
	c, do, err := d.engine.Confirm()
	d.mu.Unlock()
	if err != nil {
		return status.Confirmation{}, err
	}
	d.carryOut(context.WithoutCancel(ctx), do) // the operator's command may end before
	return status.Confirmation{Withdrawn: append([]string{}, c.Withdrawn...), Keys: append([]string{}, c.Keys...), Peers: c.Peers}, nil
}

// roamed sends a peer's datagrams where its authentic ones come from.
func (d *daemon) roamed(ctx context.Context, m sealed.Move) {
	d.carryOut(ctx, d.decide(func(e *engine.Engine) engine.Decision { return e.Roamed(m.Peer, m.Addr) }))
}

// apply applies the newest plan: first in the data path, so that no route leads a
// packet to a table that does not know where to send it, then on the host. It logs what
// can't be done now; the next turn of reapplyNowAndThen tries again.
func (d *daemon) apply(ctx context.Context) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	if d.replaced {
		return errHandedOver
	}
	path := d.path.Load()
	d.mu.Lock()
	job, mtu := d.engine.Job(), d.mtu
	d.mu.Unlock()
	plan := job.Plan
	if job.News {
		limitMemory(plan.Table.Size())
		path.update(plan)
		path.router.Publish(plan.Table)
	}
	sendFrom(path.conns, plan.Self.Endpoint.Addr())
	now, err := d.chooseMTU(plan)
	if err == nil {
		mtu = now
	}
	if mtu > 0 { // which was right before, if it is not known now
		path.updateProber(plan.Peers, mtu)
		err = errors.Join(err, d.host.Apply(ctx, d.hostNetwork(plan, path, mtu)))
	}
	guard := d.host.Guard()
	switch {
	case job.Fenced:
		err = errors.Join(err, d.withdrawPodCIDRs())
	case mtu > 0 && guard != (nftable.Identity{}): // what else is wrong is no reason to add no pods
		err = errors.Join(err, nodefile.Write(d.config.RunDir, nodefile.Node{
			Name: d.config.Node, Guard: guard, PodCIDRs: plan.PodCIDRs, Addresses: plan.NodeAddresses, TUN: d.config.TUN.Name, MTU: mtu,
			GSOMaxSize: encap.MaxSuperPacket, GSOMaxSegs: encap.MaxSegments,
			Reserved: d.config.IPAM.Reserved, CooldownSeconds: int(d.config.IPAM.Cooldown.Seconds())}))
	}
	if err == nil && !job.Fenced {
		err = nodefile.Forwards(d.config.RunDir)
	}
	do := d.decide(func(e *engine.Engine) engine.Decision {
		d.mtu = mtu
		return e.Applied(job, err, time.Now())
	})
	d.publish(do.Publish)
	if err != nil && ctx.Err() == nil {
		d.log.Error("host network not applied", "error", err, "retry", reapplyInterval)
	}
	return err
}

// chooseMTU returns the size of the largest packet that fits the underlay with its
// encapsulation, unless one was configured.
func (d *daemon) chooseMTU(plan *control.Plan) (int, error) {
	if d.config.TUN.MTU > 0 {
		return d.config.TUN.MTU, nil
	}
	underlay, _, err := hostnet.UnderlayMTU(plan.Self.Endpoint.Addr())
	if err != nil {
		return 0, err
	}
	return underlay - overhead.Of(d.config.Encapsulation, plan.EndpointIPv6), nil
}

// configured is what the configuration alone says of the host's network.
func (d *daemon) configured() hostnet.Network {
	return hostnet.Network{
		TUN:          d.config.TUN.Name,
		ClusterCIDRs: d.config.ClusterCIDRs,
		Port:         d.config.Listen.Port(),
		MarkMask:     d.config.Host.MarkMask,
		Trusted:      d.config.Guard.Trusted,
		RandomPorts:  d.config.Egress.RandomPorts,
	}
}

func (d *daemon) hostNetwork(plan *control.Plan, path *path, mtu int) hostnet.Network {
	n := d.configured()
	n.MTU, n.GSOMaxSize, n.GSOMaxSegs = mtu, encap.MaxSuperPacket, encap.MaxSegments
	n.Addresses, n.PodCIDRs, n.PeerCIDRs = plan.NodeAddresses, plan.PodCIDRs, plan.PeerCIDRs
	n.PeerAddresses, n.Senders, n.PeerEndpoints = plan.PeerAddresses, plan.Senders, plan.PeerEndpoints
	n.Known = []netip.Addr{plan.Self.Endpoint.Addr()}
	n.MTUs = narrowPrefixes(plan.Peers, path.prober.Narrow())
	for _, c := range path.conns {
		n.SourcePorts = append(n.SourcePorts, c.SourcePort())
	}
	return n
}

// watchHost restores what other programs change of weft's on the host.
func (d *daemon) watchHost(ctx context.Context) error {
	return d.host.Watch(ctx, func() error { return d.apply(ctx) })
}

// reapplyNowAndThen compares the host with the Plan from time to time. The first time
// that it is in order, weftd is ready.
func (d *daemon) reapplyNowAndThen(ctx context.Context) error {
	return every(ctx, reapplyInterval, func() error {
		d.mu.Lock()
		ready := d.engine.Started()
		d.mu.Unlock()
		err := d.apply(ctx)
		switch {
		case ready:
			_ = d.refreshConflist(ctx) // it has logged that, and pods go on
		case err == nil:
			d.becomeReady(ctx)
		}
		return nil
	})
}

// every calls do once in each interval, until it fails or ctx is done.
func every(ctx context.Context, interval time.Duration, do func() error) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := do(); err != nil {
				return err
			}
		}
	}
}

// refreshConflist follows what has happened to the chained plugins, and brings back a
// conflist that was removed.
func (d *daemon) refreshConflist(ctx context.Context) error {
	err := d.conflist.Write(ctx)
	d.mu.Lock()
	d.conflistErr = err
	d.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		d.log.Error("conflist not written", "error", err, "retry", reapplyInterval)
	}
	return err
}
