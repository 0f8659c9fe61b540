package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"weft/control"
	"weft/drop"
	"weft/internal/metrics"
	"weft/internal/page"
	"weft/internal/status"
	"weft/internal/version"
	"weft/internal/warning"
	"weft/router"
	"weft/router/tun"
)

// serveStatus answers weft, the operator's command, on the unix socket.
func (d *daemon) serveStatus(ctx context.Context, group *errgroup.Group) {
	path := filepath.Join(d.config.RunDir, status.SocketName)
	server := statusServer(status.Handler(status.Daemon{Report: d.report, Rotate: d.rotate, Confirm: d.confirm, Events: d.journal.Since, Routes: d.routes, Explain: d.explain, Probe: d.probe, Capture: d.capture}))
	listen := func() (net.Listener, error) {
		d.socket = path
		return status.Listen(path)
	}
	d.serveWhenPossible(ctx, group, path, "runDir must be writable", listen, server)
}

// statusServer serves to root, for as long as an answer takes: a capture may go on for hours.
func statusServer(handler http.Handler) *http.Server {
	return &http.Server{Handler: handler, ReadTimeout: readLimit, IdleTimeout: idleLimit}
}

// serveMetrics answers Prometheus, health probes and people, unless that is switched off.
func (d *daemon) serveMetrics(ctx context.Context, group *errgroup.Group) {
	if !d.config.Metrics.Listen.IsValid() {
		return
	}
	address := d.config.Metrics.Listen.String()
	d.serveWhenPossible(ctx, group, address, "free the port or change metrics.listen (an empty string switches metrics off)",
		func() (net.Listener, error) {
			listener, err := net.Listen("tcp", address)
			if err != nil {
				return nil, named(err, d.config.Metrics.Listen)
			}
			return netutil.LimitListener(listener, maxConnections), nil
		}, webServer(d.webHandler()))
}

// webServer serves to any local user.
func webServer(handler http.Handler) *http.Server {
	return &http.Server{Handler: handler, ReadTimeout: readLimit, WriteTimeout: writeLimit, IdleTimeout: idleLimit}
}

// webHandler serves metrics and health, and the status page unless that is switched off.
func (d *daemon) webHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", metrics.Handler(d))
	if d.config.Metrics.ServesPage() {
		page.Register(mux, page.Daemon{Report: d.report, Events: d.journal.Since})
	}
	return page.RefuseForeignNames(mux)
}

// Any local user may connect to metrics.listen, and must neither use up weftd's descriptors nor keep
// others from being answered.
const (
	// maxConnections is how many connections there may be at a time; others wait in the kernel.
	maxConnections = 64

	// readLimit is how long a request may take to arrive, and idleLimit how long a connection may
	// be without one: shorter than the intervals of scrapes.
	readLimit = 5 * time.Second
	idleLimit = 10 * time.Second

	// writeLimit is how long a client may take to read an answer: a few that read none would hold all
	// connections, and all scrapes that may be under way.
	writeLimit = 10 * time.Second
)

// serveWhenPossible serves HTTP on what listen opens, and tries again if it can't: pods
// don't need it, and another program may have the address for a while.
func (d *daemon) serveWhenPossible(ctx context.Context, group *errgroup.Group, address, remedy string, listen func() (net.Listener, error), server *http.Server) {
	try := func() bool {
		listener, err := listen()
		if err != nil {
			d.warn(address, &warning.Warning{Code: "not_served", Text: fmt.Sprintf("weftd does not serve at %s: %v; %s", address, err, remedy)})
			return false
		}
		d.warn(address, nil)
		serveHTTP(ctx, group, listener, server)
		return true
	}
	if try() {
		return
	}
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(retryInterval):
				if try() {
					return nil
				}
			}
		}
	})
}

func serveHTTP(ctx context.Context, group *errgroup.Group, listener net.Listener, server *http.Server) {
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", listener.Addr(), err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
}

// report is what `weft status` shows.
func (d *daemon) report() status.Report {
	v := d.view()
	links, leases, stats, warnings := v.byKey(), d.leases.status(d.activePlan()), d.Stats(), d.warnings(v)
	recent, recentGuard, guard := d.drops.lately(time.Now())
	guardErr := d.guardStands()
	rates := d.rates.of(v.traffic, time.Now())
	d.mu.Lock()
	defer d.mu.Unlock()
	plan, since := d.engine.Active()
	hostErr := d.engine.HostErr()
	if plan == nil { // not forwarding yet
		plan = &control.Plan{PodCIDRs: []netip.Prefix{}}
		hostErr = cmp.Or(hostErr, errNotYet)
	}
	r := status.Report{
		Version:       version.Version,
		Node:          d.config.Node,
		Encapsulation: string(d.config.Encapsulation),
		Listen:        d.config.Listen,
		TUN:           status.TUN{Name: d.config.TUN.Name, Driver: string(d.config.TUN.Driver), Lanes: d.config.Lanes(), MTU: d.mtu},
		PodCIDRs:      plan.PodCIDRs,
		CNI:           status.CNI{Conflist: d.conflist.Path(), BinDir: d.config.CNI.BinDir},
		EchoPort:      d.config.Echo.Port,
		Peers:         []status.Peer{},
		Warnings:      warnings,
		State:         status.State{Source: d.engine.Origin(), Applied: byTheClock(since)},
		Leases:        leases,
		Stats:         stats,
		Lanes:         d.lanes(),
		Drops:         dropsByName(stats),
		RecentDrops:   recent, RecentGuardDrops: recentGuard, GuardDrops: guard,
		Guard:    status.Part{Error: text(guardErr)},
		Conflist: status.Part{Error: text(d.conflistErr)},
		Host:     status.Part{Error: text(hostErr)},
	}
	if err := d.engine.NotReady(); err != nil {
		r.NotReady = err.Error()
	} else {
		r.Ready = true
	}
	if rejected := d.engine.Rejected(); rejected != nil {
		r.State.Rejected = rejected.Error()
	}
	if rejectedNodes := d.engine.RejectedNodes(); rejectedNodes != nil {
		r.State.RejectedNodes = rejectedNodes.Error()
	}
	for _, p := range plan.Peers {
		r.Peers = append(r.Peers, status.Peer{Name: p.Name, Endpoint: p.Endpoint, Prefixes: p.Prefixes, Traffic: v.traffic[p.Name], Path: v.path(p.Name), Rates: rates[p.Name], Link: links[p.Key]})
	}
	r.Diagnose()
	return r
}

// byTheClock returns what the clock would have shown at a time if it had been set as it is
// now: weft compares it with what the clock shows now. If it was not set since, that is the
// time itself.
func byTheClock(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	now := time.Now()
	at := now.Add(t.Sub(now)) // by what both have read of the monotonic clock
	// Both clocks are read, one after the other: without this it would be another time
	// at each call, by some nanoseconds.
	if at.Round(0).Sub(t.Round(0)).Abs() < time.Millisecond {
		return t
	}
	return at
}

// rotate is what `weft rotate-key` asks for.
func (d *daemon) rotate(ctx context.Context, names []string) (status.Rotation, error) {
	p := d.path.Load()
	if p == nil {
		return status.Rotation{}, fmt.Errorf("weftd does not forward yet: %w", d.Ready())
	}
	if p.keys == nil {
		return status.Rotation{}, fmt.Errorf("there are no keys, because %s does not encrypt", d.config.Encapsulation)
	}
	named, err := d.report().Select(names)
	if err != nil {
		return status.Rotation{}, err
	}
	var with []string
	for _, peer := range named {
		if len(names) > 0 || peer.Link != nil && !peer.KeysBegan.IsZero() {
			with = append(with, peer.Name)
		}
	}
	r := status.Rotation{Peers: []string{}}
	if len(with) == 0 {
		return r, nil
	}
	ctx, cancel := p.during(ctx)
	defer cancel()
	asked := time.Now()
	if err := p.keys.manager.Rotate(ctx, with...); err != nil {
		r.Error = err.Error()
	}
	r.Took = time.Since(asked).Microseconds()
	for _, s := range p.keys.manager.Status() {
		if s.Began.After(asked) && slices.Contains(with, s.Name) {
			r.Peers = append(r.Peers, s.Name)
		}
	}
	return r, nil
}

// Stats, Peers and Prefixes return what the data path has done and knows.
// Before weftd forwards there is nothing.
func (d *daemon) Stats() (s router.Stats) {
	if p := d.path.Load(); p != nil {
		s = p.keys.add(p.router.Stats())
		p.addUnread(&s, d.config.TUN.Name)
	}
	return s
}

// addUnread adds what the kernel has dropped before a lane could read it. These counters go on when weftd is
// replaced.
func (p *path) addUnread(s *router.Stats, device string) {
	if n, err := tun.Unread(device); err == nil { // without the device, the lanes end
		s.Drops[drop.TUNQueueFull] += n
	}
	for _, c := range p.conns {
		s.Drops[drop.ReceiveQueueFull] += c.Unread()
	}
}

// lanes returns the lanes' parts of Stats.
func (d *daemon) lanes() []router.Stats {
	if p := d.path.Load(); p != nil {
		return p.router.Lanes()
	}
	return []router.Stats{}
}

func (d *daemon) Peers() (n int) {
	if p := d.path.Load(); p != nil {
		n = p.router.Table().Peers()
	}
	return n
}

func (d *daemon) Prefixes() (n int) {
	if p := d.path.Load(); p != nil {
		n = p.router.Table().Size()
	}
	return n
}

// keys are those of the data path, or nil.
func (d *daemon) keys() *keys {
	if p := d.path.Load(); p != nil {
		return p.keys
	}
	return nil
}

// UDP returns whether all lanes send runs, and how many datagrams were joined for them.
func (d *daemon) UDP() (gso bool, gro uint64) {
	p := d.path.Load()
	if p == nil {
		return false, 0
	}
	gso = true
	for _, c := range p.conns {
		gso = gso && c.Runs()
		gro += c.Joined()
	}
	return gso, gro
}

// Healthy returns why the host is not as it must be, or nil. That the lanes run
// needs no word: weftd ends with the first one that does not.
func (d *daemon) Healthy() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.engine.HostErr()
}

// Ready returns why pods can't be wired yet, or nil.
func (d *daemon) Ready() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.engine.NotReady()
}

// activePlan is the Plan that was applied last, or nil.
func (d *daemon) activePlan() *control.Plan {
	d.mu.Lock()
	defer d.mu.Unlock()
	plan, _ := d.engine.Active()
	return plan
}
