package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

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
	serveHTTP(ctx, group, listener, status.Handler(d.report))
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
	d.mu.Lock()
	defer d.mu.Unlock()
	r := status.Report{
		Version:       version.Version,
		Node:          d.config.Node,
		Ready:         d.ready && d.hostErr == nil,
		Encapsulation: string(d.config.Encapsulation),
		Listen:        d.config.Listen,
		TUN:           status.TUN{Name: d.config.TUN.Name, Driver: string(d.config.TUN.Driver), Lanes: d.config.Lanes(), MTU: d.mtu},
		PodCIDRs:      d.plan.PodCIDRs,
		Peers:         []status.Peer{},
		State:         status.State{Source: d.config.Control.File, Applied: d.applied},
		Stats:         d.router.Stats(),
		Drops:         map[string]uint64{},
	}
	if d.hostErr != nil {
		r.NotReady = d.hostErr.Error()
	}
	if d.rejected != nil {
		r.State.Rejected = d.rejected.Error()
	}
	for _, p := range d.plan.Peers {
		r.Peers = append(r.Peers, status.Peer{Name: p.Name, Endpoint: p.Endpoint, Prefixes: p.Prefixes})
	}
	for _, reason := range drop.All() {
		if n := r.Stats.Drops[reason]; n > 0 {
			r.Drops[reason.String()] = n
		}
	}
	return r
}
