package main

import (
	"context"
	"slices"
	"time"

	"weft/cniplugin"
)

// reconcileInterval is how often leases, veths and pods' namespaces are compared. A leak
// costs an address for no longer than that.
const reconcileInterval = 30 * time.Second

// reconcileNowAndThen heals what a crash or a runtime that forgot something has left.
func (d *daemon) reconcileNowAndThen(ctx context.Context) error {
	ticker := time.NewTicker(reconcileInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			d.reconcile(ctx)
		}
	}
}

// reconcile logs what it does. What only an operator can mend is logged once.
func (d *daemon) reconcile(ctx context.Context) {
	changes, err := cniplugin.Reconcile(ctx, d.config.StateDir, d.config.CNI.Name)
	if err != nil && ctx.Err() == nil {
		changes = append(changes, cniplugin.Change{Action: cniplugin.Kept, Why: err.Error()})
	}
	var open []string
	for _, c := range changes {
		if c.Action != cniplugin.Kept {
			d.log.Warn("pods' leases put in order", "action", c.Action, "container", c.ContainerID, "interface", c.IfName,
				"pod", c.Pod, "addresses", c.Addresses, "why", c.Why)
			continue
		}
		open = append(open, c.String())
		if !slices.Contains(d.unmended, c.String()) {
			d.log.Error("pods' leases are not in order", "container", c.ContainerID, "interface", c.IfName,
				"pod", c.Pod, "addresses", c.Addresses, "why", c.Why)
		}
	}
	d.unmended = open
}
