package main

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"weft/control"
	"weft/internal/config"
	"weft/internal/warning"
)

// warningInterval is how often weftd looks for warnings to log.
const warningInterval = 5 * time.Second

// Warnings returns what an operator needs to know while pods go on, sorted.
func (d *daemon) Warnings() []warning.Warning {
	all := slices.Concat(
		runtimeWarnings(d.config.CNI),
		trustWarnings(d.config),
		d.offloadWarnings(),
		d.others.warnings(),
		d.keys.warnings(),
	)
	all = append(all, d.leaseWarnings()...)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.plan != nil {
		all = append(all, control.Warnings(d.plan, d.facts())...)
	}
	for _, c := range d.guard.KeyChanges() {
		all = append(all, c.Warning())
	}
	return warning.Sort(append([]warning.Warning{}, all...)) // no null in JSON
}

// facts are what this node knows of itself beside the list of nodes.
func (d *daemon) facts() control.Facts {
	f := control.Facts{Listen: d.config.Listen, Registered: d.config.Control.Source != config.SourceFile}
	addrs, _ := net.InterfaceAddrs() // none: they are not known
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			f.Addresses = append(f.Addresses, p.Addr())
		}
	}
	return f
}

// warnNowAndThen logs each warning when it begins, and when it is over.
func (d *daemon) warnNowAndThen(ctx context.Context) error {
	var before []warning.Warning
	look := func() error {
		now := d.Warnings()
		begun, over := warning.News(before, now)
		for _, w := range begun {
			d.log.Warn("an operator must look at this", "code", w.Code, "warning", w.Text)
		}
		for _, w := range over {
			d.log.Info("a warning is over", "code", w.Code, "warning", w.Text)
		}
		before = now
		return nil
	}
	_ = look()
	return every(ctx, warningInterval, look)
}

// KeyChanges returns how often the control source has replaced a known node's key.
func (d *daemon) KeyChanges() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.guard.KeyChangesTotal()
}
