package main

import (
	"context"
	"slices"
	"time"

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
	)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.guard.KeyChanges() {
		all = append(all, c.Warning())
	}
	return warning.Sort(all)
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
