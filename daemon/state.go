package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"weft/cniplugin"
	"weft/cniplugin/conflist"
	"weft/control"
	"weft/encap"
	"weft/encap/sealed"
	"weft/internal/config"
	"weft/internal/hostnet"
	"weft/internal/nftable"
	"weft/internal/nodefile"
	"weft/internal/status"
	"weft/internal/warning"
	"weft/peer"
)

// daemon is the state of a running weftd. Its methods may be called from several
// goroutines.
type daemon struct {
	others others

	config  config.Config
	log     *slog.Logger
	host    *hostnet.Host
	control *source              // set before the data path
	path    atomic.Pointer[path] // nil until weftd has its device and its sockets

	conflist *conflist.Writer

	hangups <-chan os.Signal // each asks to read the list of nodes again

	order order
	lists *rate.Limiter // bounds what is logged about lists of nodes

	applying sync.Mutex // held while the host is changed: one change at a time

	mu         sync.Mutex                 // guards what follows
	raised     map[string]warning.Warning // by subject
	found      []warning.Warning          // when weftd last looked at the host
	guard      control.Guard
	listed     *control.Plan // as the guard lets the newest good State through
	roams      []roam
	proven     proven
	next       *control.Plan // listed, with the addresses to which peers have roamed, and proven
	plan       *control.Plan // applied
	applied    time.Time     // when plan was applied
	mtu        int           // of the TUN device, in bytes
	failing    time.Time     // since when hostErr is not nil
	hostErr    error         // why the host is not as plan wants it
	refused    error         // why no newer State is applied
	rejections int
	fenced     error // why no pod may be added: this node's pod CIDR is another's now
	starting   error // why pods can't be wired yet; nil once they could
}

func newDaemon(c config.Config, log *slog.Logger, hangups <-chan os.Signal) *daemon {
	return &daemon{config: c, log: log, host: hostnet.New(log), conflist: conflist.New(c, log), hangups: hangups,
		raised: map[string]warning.Warning{}, order: order{done: map[cniplugin.Action]uint64{}}, lists: rate.NewLimiter(1, 30), starting: errors.New("weftd is starting")}
}

// update applies the State that the control source emitted. If that can't be done, the
// last good one stays.
func (d *daemon) update(ctx context.Context, state control.State, err error) {
	fenced := errors.Is(err, control.ErrNoPodCIDR) && d.fence(err)
	d.mu.Lock()
	before, rejected := d.listed, d.rejected()
	plan := before
	var changed []control.KeyChange
	if err == nil {
		var next *control.Plan
		if next, err = d.guard.Next(state, time.Now()); err == nil {
			plan = next
		}
		changed = d.guard.NewKeyChanges()
	}
	d.refused = err
	freed := err == nil && d.fenced != nil
	if freed {
		d.fenced = errNotApplied
	}
	same := before.Equal(plan)
	if plan != before {
		d.list(plan)
	}
	now := d.rejected()
	if now != nil {
		d.rejections++
	}
	d.mu.Unlock()

	switch {
	case now != nil && (rejected == nil || now.Error() != rejected.Error()):
		d.logList(slog.LevelError, "node list rejected", "error", now)
	case now == nil && rejected != nil && same:
		d.logList(slog.LevelInfo, "node list accepted again")
	}
	for _, c := range changed {
		d.logList(slog.LevelWarn, "node key changed", "peer", c.Node, "known", c.Known, "listed", c.Listed, "held", c.Held)
	}
	if text := fmt.Sprint(plan.Refused); plan.Refused != nil && text != fmt.Sprint(before.Refused) {
		d.logList(slog.LevelWarn, "nodes in list rejected", "error", plan.Refused)
	}
	if !same {
		d.logList(slog.LevelInfo, "node list applied", "peers", len(plan.Peers), "prefixes", plan.Table.Size())
	}
	if !same || fenced || freed {
		d.logApply(ctx, d.apply(ctx))
	}
}

// errNotApplied is why no pod can be added while there is a pod CIDR again, and the plugin
// does not have it yet.
var errNotApplied = errors.New("the new pod CIDR is not in use yet")

// fence keeps pods from being added from now on, and reports whether they could be before.
func (d *daemon) fence(why error) bool {
	d.applying.Lock() // or one that is under way would write the pod CIDR again
	defer d.applying.Unlock()
	_ = d.withdrawPodCIDRs() // apply says why it fails, and tries again
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.fenced
	d.fenced = why
	return before == nil
}

// withdrawPodCIDRs takes this node's pod CIDRs from the plugin, and from the next weftd.
func (d *daemon) withdrawPodCIDRs() error {
	return errors.Join(nodefile.Remove(d.config.RunDir), d.control.forget())
}

// logList logs what has become of the list of nodes, unless that changes all the time: where
// nodes register, one that was taken over can change it as often as it likes.
func (d *daemon) logList(level slog.Level, message string, args ...any) {
	if d.lists.Allow() {
		d.log.Log(context.Background(), level, message, args...)
	}
}

// rejected returns why the newest State is not applied, or not as a whole; nil if it is. d.mu is held.
func (d *daemon) rejected() error {
	kept := d.guard.Kept()
	switch {
	case len(kept) == 0:
		return d.refused
	case d.refused == nil:
		return keptError(kept, len(d.listed.Peers))
	}
	return fmt.Errorf("%w; and before, %w", d.refused, keptError(kept, len(d.listed.Peers)))
}

// keptError says that peers are kept though the control source doesn't list them.
func keptError(kept []string, peers int) error {
	const most = 5
	names := strings.Join(kept[:min(most, len(kept))], ", ")
	if more := len(kept) - most; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Errorf("it withdraws %d of %d peers (%s), which are kept; run `weft confirm` to accept their removal", len(kept), peers, names)
}

// confirm accepts the removal of the peers that the control source lists no more.
func (d *daemon) confirm(ctx context.Context) (status.Confirmation, error) {
	d.mu.Lock()
	withdrawn, keys := append([]string{}, d.guard.Kept()...), []string{}
	for _, c := range d.guard.KeyChanges() {
		keys = append(keys, c.Node)
	}
	if !d.guard.Waits() {
		d.mu.Unlock()
		return status.Confirmation{}, errors.New("no list of nodes waits to be confirmed")
	}
	plan, err := d.guard.Confirm()
	if err != nil {
		d.mu.Unlock()
		return status.Confirmation{}, err
	}
	done := status.Confirmation{Withdrawn: withdrawn, Keys: keys, Peers: len(plan.Peers)}
	d.list(plan)
	d.mu.Unlock()
	d.log.Warn("node list confirmed", "withdrawn", len(done.Withdrawn), "keys", keys, "peers", done.Peers)
	ctx = context.WithoutCancel(ctx) // who has confirmed may go
	d.logApply(ctx, d.apply(ctx))
	return done, nil
}

// logApply logs why the host could not be changed. The next turn of reapplyNowAndThen
// tries again.
func (d *daemon) logApply(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		d.log.Error("host network not applied", "error", err, "retry", reapplyInterval)
	}
}

// roam is a peer that is not where the control source says.
type roam struct {
	key    peer.Fingerprint
	listed netip.AddrPort
	addr   netip.Addr
}

// roamed sends a peer's datagrams where its authentic ones come from.
func (d *daemon) roamed(ctx context.Context, m sealed.Move) {
	d.mu.Lock()
	d.roams = slices.DeleteFunc(d.roams, func(o roam) bool { return o.key == m.Peer.Key })
	if p := d.listed.Table.ByKey(m.Peer.Key); p != nil && p.Endpoint.Addr() != m.Addr {
		d.roams = append(d.roams, roam{m.Peer.Key, p.Endpoint, m.Addr})
	}
	d.list(d.listed)
	d.mu.Unlock()
	d.log.Info("peer roamed", "peer", m.Peer.Name, "from", m.Peer.Endpoint.Addr(), "to", m.Addr)
	d.logApply(ctx, d.apply(ctx))
}

// list makes a plan, with the peers that roam, the one to apply. A roam ends when the control
// source lists another endpoint. d.mu is held.
func (d *daemon) list(plan *control.Plan) {
	limitMemory(plan.Table.Size())
	d.listed, d.next = plan, plan
	d.roams = slices.DeleteFunc(d.roams, func(m roam) bool {
		p := plan.Table.ByKey(m.key)
		return p == nil || p.Endpoint != m.listed
	})
	for _, m := range d.roams {
		moved, err := d.next.WithEndpoint(m.key, m.addr)
		if err != nil {
			d.log.Warn("peer roamed to another's address", "to", m.addr, "error", err)
			continue
		}
		d.next = moved
	}
	with, err := d.next.WithAddresses(d.proven)
	if err != nil { // no address is taken twice
		d.log.Error("proven addresses not used", "error", err)
		return
	}
	d.next = with
}

// warnNewPodCIDRs logs that this node has other pod CIDRs than before, if it has. Before the
// first plan, they are those of the weftd before.
func (d *daemon) warnNewPodCIDRs(before, now *control.Plan) {
	var had []netip.Prefix
	if before != nil {
		had = before.PodCIDRs
	} else {
		had = d.control.had()
	}
	if len(had) > 0 && !slices.Equal(had, now.PodCIDRs) {
		d.log.Warn("this node's pod CIDRs changed", "before", join(had), "now", join(now.PodCIDRs),
			"remedy", "delete the pods that weft status names as stranded")
	}
}

// apply applies the newest plan: first in the data path, so that no route leads a
// packet to a table that does not know where to send it, then on the host.
func (d *daemon) apply(ctx context.Context) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	path := d.path.Load()
	d.mu.Lock()
	before := d.plan
	plan, fenced, news, mtu := d.next, d.fenced != nil && !errors.Is(d.fenced, errNotApplied), d.next != before, d.mtu
	d.mu.Unlock()
	if news {
		d.warnNewPodCIDRs(before, plan)
		path.keys.update(plan)
		path.router.Publish(plan.Table)
	}
	sendFrom(path.conns, plan.Self.Endpoint.Addr())
	now, err := d.chooseMTU(plan)
	if err == nil {
		mtu = now
	}
	if mtu > 0 { // which was right before, if it is not known now
		err = errors.Join(err, d.host.Apply(ctx, d.hostNetwork(plan, path.conns, mtu)))
	}
	guard := d.host.Guard()
	switch {
	case fenced:
		err = errors.Join(err, d.withdrawPodCIDRs())
	case mtu > 0 && guard != (nftable.Identity{}): // what else is wrong is no reason to add no pods
		err = errors.Join(err, nodefile.Write(d.config.RunDir, nodefile.Node{
			Name: d.config.Node, Guard: guard, PodCIDRs: plan.PodCIDRs, Addresses: plan.NodeAddresses, TUN: d.config.TUN.Name, MTU: mtu,
			GSOMaxSize: encap.MaxSuperPacket, GSOMaxSegs: encap.MaxSegments,
			Reserved: d.config.IPAM.Reserved, RestSeconds: int(d.config.IPAM.Rest.Seconds())}))
	}
	if err == nil && !fenced {
		err = nodefile.Forwards(d.config.RunDir)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.plan != plan {
		d.plan, d.applied = plan, time.Now()
	}
	d.mtu, d.hostErr = mtu, err
	switch {
	case err == nil:
		d.failing = time.Time{}
	case d.failing.IsZero():
		d.failing = time.Now()
	case d.starting == nil && time.Since(d.failing) > nodefile.ForwardingGrace:
		d.control.reachable(plan.PodCIDRs, err.Error())
	}
	if !fenced && err == nil {
		d.fenced = nil
		if d.starting == nil {
			d.control.reachable(plan.PodCIDRs, "")
		}
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
	return underlay - overhead(d.config, plan.EndpointIPv6), nil
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

func (d *daemon) hostNetwork(plan *control.Plan, conns []*encap.Conn, mtu int) hostnet.Network {
	n := d.configured()
	n.MTU, n.GSOMaxSize, n.GSOMaxSegs = mtu, encap.MaxSuperPacket, encap.MaxSegments
	n.Addresses, n.PodCIDRs, n.PeerCIDRs = plan.NodeAddresses, plan.PodCIDRs, plan.PeerCIDRs
	n.PeerAddresses, n.Senders, n.PeerEndpoints = plan.PeerAddresses, plan.Senders, plan.PeerEndpoints
	n.Known = []netip.Addr{plan.Self.Endpoint.Addr()}
	for _, c := range conns {
		n.SourcePorts = append(n.SourcePorts, c.SourcePort())
	}
	return n
}

// watchHost restores what other programs change of weft's on the host.
func (d *daemon) watchHost(ctx context.Context) error {
	return d.host.Watch(ctx, func() error {
		err := d.apply(ctx)
		d.logApply(ctx, err)
		return err
	})
}

// reapplyNowAndThen compares the host with the Plan from time to time. The first time
// that it is in order, weftd is ready.
func (d *daemon) reapplyNowAndThen(ctx context.Context) error {
	return every(ctx, reapplyInterval, func() error {
		d.mu.Lock()
		ready := d.starting == nil
		d.mu.Unlock()
		err := d.apply(ctx)
		d.logApply(ctx, err)
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
// conflist that somebody removed.
func (d *daemon) refreshConflist(ctx context.Context) error {
	err := d.conflist.Write(ctx)
	if err != nil && ctx.Err() == nil {
		d.log.Error("conflist not written", "error", err, "retry", reapplyInterval)
	}
	return err
}
