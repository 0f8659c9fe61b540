package daemon

import (
	"context"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"weft/internal/hostcheck"
	"weft/internal/rtnetlink"
	"weft/internal/warning"
)

const (
	// othersInterval is how often weftd looks at other programs' filters and rules at most,
	// but for othersBurst times in a row: to list many rules is expensive.
	othersInterval = 10 * time.Second
	othersBurst    = 3

	// othersQuiet is how often it looks without an event: iptables-legacy makes none.
	othersQuiet = 5 * time.Minute
)

// others are the other programs of the host, as far as they drop weft's packets.
type others struct {
	mu    sync.Mutex
	found []warning.Warning
}

func (o *others) warnings() []warning.Warning {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.found
}

// look looks at other programs' filters and rules, and has the filters accept pods' packets
// if it is configured so.
func (o *others) look(ctx context.Context, h hostcheck.Host, accepts bool, log *slog.Logger) {
	found := h.Look(ctx)
	if accepts && warning.Counts(found)[hostcheck.CodeForward] > 0 {
		if err := h.AcceptForward(ctx, found); err != nil {
			log.Error("accept rules not added", "error", err)
		} else {
			log.Info("accept rules added", "filters", warning.Counts(found)[hostcheck.CodeForward])
		}
		found = h.Look(ctx)
	}
	if ctx.Err() != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.found = found
}

// lookAtOthers looks when filters or routing rules change. Where the kernel reports no
// changes, it looks every othersQuiet.
func (d *daemon) lookAtOthers(ctx context.Context) {
	changed := make(chan struct{}, 1)
	note := func([]syscall.NetlinkMessage) {
		select {
		case changed <- struct{}{}:
		default: // it is known already
		}
	}
	watch := func(protocol int, groups ...uint) {
		events, err := rtnetlink.Subscribe(protocol, groups...)
		if err == nil {
			err = events.Receive(ctx, note)
		}
		if err != nil {
			d.log.Warn("other programs' changes not watched", "error", err, "interval", othersQuiet)
		}
	}
	var tasks sync.WaitGroup
	tasks.Go(func() { watch(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES) })
	tasks.Go(func() { watch(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE) })
	limit := rate.NewLimiter(rate.Every(othersInterval), othersBurst)
	for limit.Wait(ctx) == nil { // fails when ctx is done
		d.others.look(ctx, d.needs(), d.config.Host.AcceptForward, d.log)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-time.After(othersQuiet):
		}
	}
	tasks.Wait()
}

// needs is what other programs must let pass.
func (d *daemon) needs() hostcheck.Host {
	return hostcheck.Host{
		TUN: d.config.TUN.Name, Port: d.config.Listen.Port(), ClusterCIDRs: d.config.ClusterCIDRs, PodCIDRs: d.activePlan().PodCIDRs,
		AcceptChain: d.config.Host.AcceptForwardChain,
	}
}
