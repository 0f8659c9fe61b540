package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/encap"
	"weft/encap/sealed/handshake"
	"weft/internal/metrics"
	"weft/internal/status"
	"weft/internal/version"
	"weft/router/drop"
)

// serveStatus answers weft, the operator's command, on the unix socket.
func (d *daemon) serveStatus(ctx context.Context, group *errgroup.Group) error {
	listener, err := status.Listen(filepath.Join(d.config.RunDir, status.SocketName))
	if err != nil {
		return err
	}
	serveHTTP(ctx, group, listener, status.Handler(status.Daemon{Report: d.report, Rotate: d.rotate, Confirm: d.confirm}))
	return nil
}

// serveMetrics answers Prometheus and health probes, unless that is switched off.
func (d *daemon) serveMetrics(ctx context.Context, group *errgroup.Group) error {
	if !d.config.Metrics.Listen.IsValid() {
		return nil
	}
	listener, err := net.Listen("tcp", d.config.Metrics.Listen.String())
	if err != nil {
		return fmt.Errorf("serve metrics (metrics.listen; an empty string switches them off): %w", err)
	}
	serveHTTP(ctx, group, listener, metrics.Handler(d))
	return nil
}

func serveHTTP(ctx context.Context, group *errgroup.Group, listener net.Listener, handler http.Handler) {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
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
	links, leases := d.keys.links(), d.leases()
	d.mu.Lock()
	defer d.mu.Unlock()
	r := status.Report{
		Version:       version.Version,
		Node:          d.config.Node,
		Ready:         d.ready && d.hostErr == nil && d.fenced == nil,
		Encapsulation: string(d.config.Encapsulation),
		Listen:        d.config.Listen,
		TUN:           status.TUN{Name: d.config.TUN.Name, Driver: string(d.config.TUN.Driver), Lanes: d.config.Lanes(), MTU: d.mtu},
		PodCIDRs:      d.plan.PodCIDRs,
		Peers:         []status.Peer{},
		State:         status.State{Source: d.guard.State().Origin, Applied: byTheClock(d.applied)},
		Leases:        leases,
		Stats:         d.Stats(),
		Drops:         map[string]uint64{},
	}
	if err := cmp.Or(d.hostErr, d.fenced); err != nil {
		r.NotReady = err.Error()
	}
	if d.rejected != nil {
		r.State.Rejected = d.rejected.Error()
	}
	if d.listed.Refused != nil {
		r.State.LeftOut = d.listed.Refused.Error()
	}
	for _, p := range d.plan.Peers {
		r.Peers = append(r.Peers, status.Peer{Name: p.Name, Endpoint: p.Endpoint, Prefixes: p.Prefixes, Link: links[p.Key]})
	}
	for _, reason := range drop.All() {
		if n := r.Stats.Drops[reason]; n > 0 {
			r.Drops[reason.String()] = n
		}
	}
	return r
}

// links tells how this node and each peer stand.
func (k *keys) links() map[encap.Fingerprint]*status.Link {
	if k == nil {
		return nil
	}
	links := map[encap.Fingerprint]*status.Link{}
	for _, s := range k.manager.Status() {
		l := &status.Link{
			Key: s.Key.String(), State: string(s.State), KeysBegan: byTheClock(s.Began), RTT: s.RTT.Microseconds(),
			SentPackets: s.Traffic.SentPackets, SentBytes: s.Traffic.SentBytes,
			ReceivedPackets: s.Traffic.ReceivedPackets, ReceivedBytes: s.Traffic.ReceivedBytes,
			Refused: s.Traffic.Refused,
		}
		if s.State == handshake.Unreachable {
			l.Failures, l.Retry = s.Failures, byTheClock(s.Retry)
			if s.Err != nil {
				l.Error = s.Err.Error()
			}
		}
		links[s.Key] = l
	}
	return links
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
	if d.keys == nil {
		return status.Rotation{}, fmt.Errorf("there are no keys: %s does not encrypt", d.config.Encapsulation)
	}
	named, err := d.report().Select(names)
	if err != nil {
		return status.Rotation{}, err
	}
	var with []string
	for _, p := range named {
		if len(names) > 0 || p.Link != nil && !p.KeysBegan.IsZero() {
			with = append(with, p.Name)
		}
	}
	r := status.Rotation{Peers: []string{}}
	if len(with) == 0 {
		return r, nil
	}
	asked := time.Now()
	if err := d.keys.manager.Rotate(ctx, with...); err != nil {
		r.Error = err.Error()
	}
	r.Took = time.Since(asked).Microseconds()
	for _, s := range d.keys.manager.Status() {
		if s.Began.After(asked) && slices.Contains(with, s.Name) {
			r.Peers = append(r.Peers, s.Name)
		}
	}
	return r, nil
}
