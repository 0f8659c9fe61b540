package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"weft/cniplugin"
	"weft/internal/status"
	"weft/ipam"
)

const (
	// reconcileInterval is how often leases, veths and pods' namespaces are compared. A
	// leak costs an address for no longer than that.
	reconcileInterval = 30 * time.Second

	// reconcileWait bounds how long a lock that somebody holds may keep weftd from its
	// start.
	reconcileWait = ipam.LockTimeout
)

// order is whether pods' leases are in order, and what was done for it.
type order struct {
	mu       sync.Mutex // guards what follows
	done     map[cniplugin.Action]uint64
	unmended []string // what the last reconcile could not mend, a line each
}

// reconcileNowAndThen heals what a crash or a runtime that forgot something has left.
func (d *daemon) reconcileNowAndThen(ctx context.Context, interval time.Duration) error {
	return every(ctx, interval, func() error {
		d.reconcile(ctx)
		return nil
	})
}

// reconcile logs what it does. What only an operator can mend is logged when it appears.
func (d *daemon) reconcile(ctx context.Context) {
	waiting, cancel := context.WithTimeout(ctx, reconcileWait)
	defer cancel()
	d.mu.Lock()
	own := d.next.NodeAddresses
	d.mu.Unlock()
	changes, err := cniplugin.Reconcile(waiting, d.config.StateDir, d.config.CNI.Name, own)
	if ctx.Err() != nil { // whatever could not be done, the next weftd does it
		changes, err = slices.DeleteFunc(changes, isKept), nil
	}
	if err != nil {
		changes = append(changes, cniplugin.Change{Action: cniplugin.Kept, Why: err.Error()})
	}
	d.order.mu.Lock()
	defer d.order.mu.Unlock()
	before := d.order.unmended
	d.order.unmended = nil
	for _, c := range changes {
		if !isKept(c) {
			d.order.done[c.Action]++
			d.log.Warn("pods' leases put in order", append([]any{"action", c.Action}, about(c)...)...)
			continue
		}
		line := c.String()
		d.order.unmended = append(d.order.unmended, line)
		if !slices.Contains(before, line) {
			d.log.Error("pods' leases are not in order", about(c)...)
		}
	}
	if len(before) > 0 && len(d.order.unmended) == 0 && ctx.Err() == nil {
		d.log.Info("pods' leases are in order again")
	}
}

func isKept(c cniplugin.Change) bool { return c.Action == cniplugin.Kept }

// about is what the log says of a change.
func about(c cniplugin.Change) []any {
	if c.ContainerID == "" && c.Veth == "" { // not of one attachment
		return []any{"why", c.Why}
	}
	return []any{"container", c.ContainerID, "interface", c.IfName, "pod", c.Pod, "addresses", c.Addresses, "why", c.Why}
}

// Reconciled returns how often each action was taken, and how much only an operator can
// mend.
func (d *daemon) Reconciled() (actions map[string]uint64, unmended int) {
	d.order.mu.Lock()
	defer d.order.mu.Unlock()
	actions = map[string]uint64{}
	for _, a := range []cniplugin.Action{cniplugin.Freed, cniplugin.Adopted, cniplugin.Rebuilt, cniplugin.Rewired} {
		actions[string(a)] = d.order.done[a]
	}
	return actions, len(d.order.unmended)
}

// Leases reads the lease file of weftd's network, which takes a millisecond.
func (d *daemon) Leases() (held, resting int, err error) {
	store, err := ipam.Open(d.config.StateDir, d.config.CNI.Name)
	if err != nil {
		return 0, 0, err
	}
	return store.Usage(d.config.IPAM.Rest)
}

// leases is what `weft status` shows of them.
func (d *daemon) leases() status.Leases {
	held, resting, err := d.Leases()
	d.order.mu.Lock()
	defer d.order.mu.Unlock()
	l := status.Leases{Held: held, Resting: resting, Unmended: append([]string{}, d.order.unmended...)}
	if err != nil && len(l.Unmended) == 0 { // the next reconcile says what becomes of it
		l.Unmended = append(l.Unmended, err.Error())
	}
	return l
}
