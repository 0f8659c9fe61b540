package main

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
	"time"

	"weft/cniplugin"
	"weft/control"
	"weft/encap"
	"weft/encap/sealed"
	"weft/encap/sealed/handshake"
	"weft/internal/config"
	"weft/internal/hostnet"
	"weft/internal/metrics"
	"weft/internal/nodefile"
	"weft/internal/status"
	"weft/router"
)

// daemon is what is in force at the moment. Its methods may be called from several
// goroutines.
type daemon struct {
	config  config.Config
	control *source
	keys    *keys
	log     *slog.Logger
	router  *router.Router
	conns   []*encap.Conn
	host    *hostnet.Host

	conflist *conflistWriter

	hangups <-chan os.Signal // each asks to read the list of nodes again

	order order

	applying sync.Mutex // held while the host is changed: one change at a time

	mu         sync.Mutex // guards what follows
	guard      control.Guard
	listed     *control.Plan // as the guard lets the newest good State through
	moves      []move
	next       *control.Plan // listed, with the peers that have moved where they are
	plan       *control.Plan // in force
	applied    time.Time     // when plan came into force
	mtu        int           // of the TUN device, in bytes
	hostErr    error         // why the host is not as plan wants it
	rejected   error         // why the newest State is not in force, or not as a whole
	rejections int
	fenced     error // why no pod may be added: this node's pod CIDR is another's now
	ready      bool
}

func newDaemon(c config.Config, log *slog.Logger, hangups <-chan os.Signal) *daemon {
	return &daemon{config: c, log: log, host: hostnet.New(log), conflist: newConflistWriter(c, log), hangups: hangups,
		order: order{done: map[cniplugin.Action]uint64{}}}
}

// update puts the State that the control source emitted into force. If that can't
// be done, the last good one stays.
func (d *daemon) update(ctx context.Context, state control.State, err error) {
	d.mu.Lock()
	before, rejected := d.listed, d.rejected
	plan := before
	if err == nil {
		plan, err = d.guard.Next(state, time.Now())
	}
	switch kept := d.guard.Kept(); {
	case err != nil:
		d.rejected, plan = err, before
	case len(kept) > 0:
		d.rejected = keptError(kept, len(plan.Peers))
	default:
		d.rejected = nil
	}
	if d.rejected != nil {
		d.rejections++
	}
	fenced := d.fenced != nil
	if err == nil {
		d.fenced = nil
	} else if errors.Is(err, control.ErrNoPodCIDR) {
		d.fenced = err
	}
	changed := fenced != (d.fenced != nil)
	same := before.Equal(plan)
	if plan != before {
		d.list(plan)
	}
	now := d.rejected
	d.mu.Unlock()

	switch {
	case now != nil && (rejected == nil || now.Error() != rejected.Error()):
		d.log.Error("the control source has no good list of nodes; the last good one stays in force", "error", now)
	case now == nil && rejected != nil && same:
		d.log.Info("the list of nodes is again the one in force")
	}
	if text := fmt.Sprint(plan.Refused); plan.Refused != nil && text != fmt.Sprint(before.Refused) {
		d.log.Warn("nodes are left out of the list", "error", plan.Refused)
	}
	if !same {
		d.log.Info("a new list of nodes is in force", "peers", len(plan.Peers), "prefixes", plan.Table.Size())
	}
	if !same || changed {
		d.tell(ctx, d.apply(ctx))
	}
}

// keptError tells that peers are kept though the control source doesn't list them.
func keptError(kept []string, peers int) error {
	const told = 5
	names := strings.Join(kept[:min(told, len(kept))], ", ")
	if more := len(kept) - told; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Errorf("it withdraws %d of %d peers (%s), which are kept; if that is meant, `weft confirm` lets them go", len(kept), peers, names)
}

// confirm lets go of the peers that are kept though the control source lists them no more.
func (d *daemon) confirm(ctx context.Context) (status.Confirmation, error) {
	d.mu.Lock()
	withdrawn := d.guard.Kept()
	if len(withdrawn) == 0 {
		d.mu.Unlock()
		return status.Confirmation{}, errors.New("no list of nodes waits to be confirmed")
	}
	plan, err := d.guard.Confirm()
	if err != nil {
		d.mu.Unlock()
		return status.Confirmation{}, err
	}
	done := status.Confirmation{Withdrawn: withdrawn, Peers: len(plan.Peers)}
	d.rejected = nil
	d.list(plan)
	d.mu.Unlock()
	d.log.Warn("the new list of nodes was confirmed and is in force", "withdrawn", len(done.Withdrawn), "peers", done.Peers)
	d.tell(ctx, d.apply(ctx))
	return done, nil
}

// tell logs that the host is not as it must be. The next turn of reapplyNowAndThen
// tries again.
func (d *daemon) tell(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		d.log.Error("the host is not as the list of nodes wants it", "error", err, "retry", reapplyInterval)
	}
}

// move is a peer that is not where the control source says.
type move struct {
	key    encap.Fingerprint
	listed netip.AddrPort
	addr   netip.Addr
}

// follow has a peer's datagrams go where its authentic ones come from.
func (d *daemon) follow(ctx context.Context, m sealed.Move) {
	d.mu.Lock()
	d.moves = slices.DeleteFunc(d.moves, func(o move) bool { return o.key == m.Peer.Key })
	if p := d.listed.Table.ByKey(m.Peer.Key); p != nil && p.Endpoint.Addr() != m.Addr {
		d.moves = append(d.moves, move{m.Peer.Key, p.Endpoint, m.Addr})
	}
	d.list(d.listed)
	d.mu.Unlock()
	d.log.Info("a node has moved", "peer", m.Peer.Name, "from", m.Peer.Endpoint.Addr(), "to", m.Addr)
	d.tell(ctx, d.apply(ctx))
}

// list makes a plan, and the moves since, what shall be in force. A move of which the
// control source has said something new does not count any more. d.mu is held.
func (d *daemon) list(plan *control.Plan) {
	d.listed, d.next = plan, plan
	d.moves = slices.DeleteFunc(d.moves, func(m move) bool {
		p := plan.Table.ByKey(m.key)
		return p == nil || p.Endpoint != m.listed
	})
	for _, m := range d.moves {
		moved, err := d.next.WithEndpoint(m.key, m.addr)
		if err != nil {
			d.log.Warn("a node has moved to an address that is another's", "to", m.addr, "error", err)
			continue
		}
		d.next = moved
	}
}

// apply puts the newest plan into force: first in the data path, so that no route leads a
// packet to a table that does not know where to send it, then on the host.
func (d *daemon) apply(ctx context.Context) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	d.mu.Lock()
	plan, fenced, news := d.next, d.fenced != nil, d.next != d.plan
	d.mu.Unlock()
	if news {
		d.keys.update(plan)
		d.router.Publish(plan.Table)
	}
	mtu, err := d.chooseMTU(plan)
	if err == nil {
		err = d.host.Apply(ctx, d.hostNetwork(plan, mtu))
	}
	switch { // the plugin is told of nothing that does not hold
	case err != nil:
	case fenced:
		err = nodefile.Remove(d.config.RunDir)
	default:
		err = nodefile.Write(d.config.RunDir, nodefile.Node{
			Name: d.config.Node, PodCIDRs: plan.PodCIDRs, Addresses: plan.NodeAddresses, TUN: d.config.TUN.Name, MTU: mtu,
			GSOMaxSize: encap.MaxSuperPacket, GSOMaxSegs: encap.MaxSegments,
			Reserved: d.config.IPAM.Reserved, RestSeconds: int(d.config.IPAM.Rest.Seconds())})
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
	return underlay - overhead(d.config, plan.EndpointIPv6), err
}

func (d *daemon) hostNetwork(plan *control.Plan, mtu int) hostnet.Network {
	sources := make([]uint16, len(d.conns))
	for i, c := range d.conns {
		sources[i] = c.SourcePort()
	}
	var senders []netip.Addr
	for _, p := range plan.Peers {
		senders = append(senders, p.Endpoint.Addr())
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
		Senders:       senders,
		Port:          d.config.Listen.Port(),
		SourcePorts:   sources,
	}
}

// mend brings back what other programs take from weft on the host.
func (d *daemon) mend(ctx context.Context) error {
	return d.host.Watch(ctx, func() error {
		err := d.apply(ctx)
		d.tell(ctx, err)
		return err
	})
}

// reapplyNowAndThen compares the host with the Plan from time to time. The first time
// that it is in order, weftd is ready.
func (d *daemon) reapplyNowAndThen(ctx context.Context) error {
	return every(ctx, reapplyInterval, func() error {
		d.mu.Lock()
		ready := d.ready
		d.mu.Unlock()
		err := d.apply(ctx)
		d.tell(ctx, err)
		switch {
		case ready:
			d.refreshConflist(ctx)
		case err == nil:
			if err := d.becomeReady(ctx); err != nil && ctx.Err() == nil {
				return err
			}
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
func (d *daemon) refreshConflist(ctx context.Context) {
	if err := d.conflist.write(ctx); err != nil && ctx.Err() == nil {
		d.log.Error("the conflist is not as it must be", "error", err, "retry", reapplyInterval)
	}
}

// Stats, Peers and Prefixes tell what the data path has done and knows.
func (d *daemon) Stats() router.Stats { return d.keys.add(d.router.Stats()) }
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

// Links returns how many peers are in which state, and what has happened with them, or
// nil with vxlan.
func (d *daemon) Links() *metrics.Links {
	if d.keys == nil {
		return nil
	}
	counts := d.keys.manager.Counts()
	links := &metrics.Links{Peers: map[string]int{}, Agreed: counts.Agreed, Failed: counts.Failed, Unreachable: counts.Unreachable}
	for _, state := range handshake.States() {
		links.Peers[string(state)] = 0
	}
	for _, s := range d.keys.manager.Status() {
		links.Peers[string(s.State)]++
	}
	return links
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

// LeftOut reports whether some nodes of the State are no peers.
func (d *daemon) LeftOut() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.listed.Refused != nil
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
	switch {
	case d.hostErr != nil:
		return d.hostErr
	case d.fenced != nil:
		return d.fenced
	case !d.ready:
		return errors.New("weftd is starting")
	}
	return nil
}
