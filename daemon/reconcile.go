package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"weft/cniplugin"
	"weft/internal/nodefile"
	"weft/internal/status"
	"weft/internal/warning"
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

// order is what was done to reconcile pods' leases with pods, and what could not be.
type order struct {
	mu           sync.Mutex // guards what follows
	done         map[cniplugin.Action]uint64
	unreconciled []string // what the last reconcile could not repair, a line each
}

// reconcileNowAndThen repairs what a crash, or a runtime that forgot something, has left.
func (d *daemon) reconcileNowAndThen(ctx context.Context, interval time.Duration) error {
	return every(ctx, interval, func() error {
		d.reconcile(ctx)
		return nil
	})
}

// reconcile logs what it does. What only an operator can repair is logged when it appears.
func (d *daemon) reconcile(ctx context.Context) {
	waiting, cancel := context.WithTimeout(ctx, reconcileWait)
	defer cancel()
	d.mu.Lock()
	own := d.engine.Next().NodeAddresses
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
	before := d.order.unreconciled
	d.order.unreconciled = nil
	for _, c := range changes {
		if !isKept(c) {
			d.order.done[c.Action]++
			d.log.Warn("pod lease reconciled", append([]any{"action", c.Action}, about(c)...)...)
			continue
		}
		line := c.String()
		d.order.unreconciled = append(d.order.unreconciled, line)
		if !slices.Contains(before, line) {
			d.log.Error("pod lease not reconciled", about(c)...)
		}
	}
	if len(before) > 0 && len(d.order.unreconciled) == 0 && ctx.Err() == nil {
		d.log.Info("all pod leases reconciled")
	}
}

func isKept(c cniplugin.Change) bool { return c.Action == cniplugin.Kept }

// about is what the log says of a change.
func about(c cniplugin.Change) []any {
	if c.ContainerID == "" && c.Veth == "" { // not of one attachment
		return []any{"reason", c.Why}
	}
	return []any{"container", c.ContainerID, "interface", c.IfName, "pod", c.Pod, "addresses", c.Addresses, "reason", c.Why}
}

// Reconciled returns how often each action was taken, and how much only an operator can
// repair.
func (d *daemon) Reconciled() (actions map[string]uint64, unreconciled int) {
	d.order.mu.Lock()
	defer d.order.mu.Unlock()
	actions = map[string]uint64{}
	for _, a := range []cniplugin.Action{cniplugin.Freed, cniplugin.Adopted, cniplugin.Rebuilt, cniplugin.Rewired} {
		actions[string(a)] = d.order.done[a]
	}
	return actions, len(d.order.unreconciled)
}

// Leases reads the lease file of weftd's network, which takes a millisecond.
func (d *daemon) Leases() (held, cooling int, err error) {
	store, err := ipam.Open(d.config.StateDir, d.config.CNI.Name)
	if err != nil {
		return 0, 0, err
	}
	return store.Usage(d.config.IPAM.Cooldown)
}

// Stranded returns the leases of pods whose addresses are outside this node's pod CIDRs: the
// node got others, and the pods must be made anew.
func (d *daemon) Stranded() ([]ipam.Lease, error) {
	plan := d.activePlan()
	if plan == nil {
		return nil, nil
	}
	store, err := ipam.Open(d.config.StateDir, d.config.CNI.Name)
	if err != nil {
		return nil, err
	}
	leases, _, err := store.List()
	return slices.DeleteFunc(leases, func(l ipam.Lease) bool { return !cniplugin.Stranded(l, plan.PodCIDRs) }), err
}

// publishStranded has the control source publish which pods are stranded.
func (d *daemon) publishStranded(leases []ipam.Lease) {
	d.mu.Lock()
	source := d.control
	d.mu.Unlock()
	if source == nil {
		return
	}
	var pods []string
	for _, l := range leases {
		pods = append(pods, fmt.Sprintf("%s (%s)", cmp.Or(l.Pod, l.String()), join(l.Addresses)))
	}
	source.stranded(pods)
}

// leaseWarnings says which pods are stranded, and what keeps new ones from being added. stranded
// and err are what Stranded returned.
func (d *daemon) leaseWarnings(stranded []ipam.Lease, err error) []warning.Warning {
	plan := d.activePlan()
	var all []warning.Warning
	if err := checkStateDir(d.config.StateDir); err != nil {
		all = append(all, warning.Warning{Code: "state_dir", Text: fmt.Sprintf("pods can't be added or removed: %v", err)})
	}
	if plan == nil || err != nil { // the next reconcile says what becomes of the error
		return all
	}
	for _, l := range stranded {
		all = append(all, warning.Warning{Code: "stranded_pod", Text: fmt.Sprintf("no other node reaches pod %s at %s: this node's pod CIDRs are now %s; delete the pod",
			cmp.Or(l.Pod, l.String()), join(l.Addresses), join(plan.PodCIDRs))})
	}
	store, err := ipam.Open(d.config.StateDir, d.config.CNI.Name)
	if err == nil {
		err = store.Available(cniplugin.NodePool(nodefile.Node{PodCIDRs: plan.PodCIDRs, Addresses: plan.NodeAddresses,
			Reserved: d.config.IPAM.Reserved, CooldownSeconds: int(d.config.IPAM.Cooldown.Seconds())}))
	}
	if errors.Is(err, ipam.ErrExhausted) {
		all = append(all, warning.Warning{Code: "pool_exhausted", Text: fmt.Sprintf("no pod can be added: %v; remove pods, or give the node more addresses", err)})
	}
	return all
}

// checkStateDir returns why leases can't be written, or nil.
func checkStateDir(dir string) error {
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return fmt.Errorf("weftd's stateDir can't be written: %w; make it writable", &fs.PathError{Op: "write", Path: dir, Err: err})
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	// A lease file is written anew each time, and takes less.
	const least = 1 << 20
	switch {
	case stat.Blocks > 0 && stat.Bavail*uint64(stat.Bsize) < least:
		return fmt.Errorf("the disk with weftd's stateDir %s is full; make room", dir)
	case stat.Files > 0 && stat.Ffree == 0:
		return fmt.Errorf("the disk with weftd's stateDir %s has no inode left; remove files", dir)
	}
	return nil
}

// join lists items for people.
func join[T fmt.Stringer](items []T) string {
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = item.String()
	}
	return strings.Join(texts, ", ")
}

// leases is what `weft status` shows of them.
func (d *daemon) leases() status.Leases {
	held, cooling, err := d.Leases()
	d.order.mu.Lock()
	defer d.order.mu.Unlock()
	l := status.Leases{Held: held, CoolingDown: cooling, Unreconciled: append([]string{}, d.order.unreconciled...)}
	if err != nil && len(l.Unreconciled) == 0 { // the next reconcile says what becomes of it
		l.Unreconciled = append(l.Unreconciled, err.Error())
	}
	return l
}
