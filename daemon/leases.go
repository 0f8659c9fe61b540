package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/cniplugin/leases"
	"weft/control"
	"weft/internal/config"
	"weft/internal/nodefile"
	"weft/internal/status"
	"weft/internal/warning"
	"weft/ipam"
)

const (
	// reconcileInterval is how often leases, veths and pods' namespaces are compared. A
	// leak costs an address for no longer than that.
	reconcileInterval = 30 * time.Second

	// reconcileWait bounds how long another holder of a lock may delay weftd's start.
	reconcileWait = ipam.LockTimeout
)

// podLeases looks after the addresses that this node's pods have leased. Its methods may be called
// from several goroutines.
type podLeases struct {
	config config.Config
	log    *slog.Logger

	mu           sync.Mutex // guards what follows
	done         map[leases.Action]uint64
	unreconciled []string // what the last reconcile could not repair, a line each
}

func newPodLeases(c config.Config, log *slog.Logger) *podLeases {
	return &podLeases{config: c, log: log, done: map[leases.Action]uint64{}}
}

// reconcileNowAndThen repairs what a crash, or a runtime that forgot something, has left.
func (d *daemon) reconcileNowAndThen(ctx context.Context, interval time.Duration) error {
	return every(ctx, interval, func() error {
		d.reconcile(ctx)
		return nil
	})
}

func (d *daemon) reconcile(ctx context.Context) {
	d.mu.Lock()
	own := d.engine.Next().NodeAddresses
	d.mu.Unlock()
	d.leases.reconcile(ctx, own)
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
		pods = append(pods, fmt.Sprintf("%s (%s)", cmp.Or(l.Pod, l.String()), control.Join(l.Addresses)))
	}
	source.stranded(pods)
}

// reconcile compares leases, veths and pods' namespaces, and logs what it does about differences.
// It logs problems that only an operator can repair when they appear. own are the
// node's own addresses.
func (p *podLeases) reconcile(ctx context.Context, own []netip.Addr) {
	waiting, cancel := context.WithTimeout(ctx, reconcileWait)
	defer cancel()
	changes, err := leases.Reconcile(waiting, p.config.StateDir, p.config.CNI.Name, own)
	if ctx.Err() != nil { // whatever could not be done, the next weftd does it
		changes, err = slices.DeleteFunc(changes, isKept), nil
	}
	if err != nil {
		changes = append(changes, leases.Change{Action: leases.Kept, Why: err.Error()})
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.unreconciled
	p.unreconciled = nil
	for _, c := range changes {
		if !isKept(c) {
			p.done[c.Action]++
			p.log.Warn("pod lease reconciled", append([]any{"action", c.Action}, about(c)...)...)
			continue
		}
		line := c.String()
		p.unreconciled = append(p.unreconciled, line)
		if !slices.Contains(before, line) {
			p.log.Error("pod lease not reconciled", about(c)...)
		}
	}
	if len(before) > 0 && len(p.unreconciled) == 0 && ctx.Err() == nil {
		p.log.Info("all pod leases reconciled")
	}
}

func isKept(c leases.Change) bool { return c.Action == leases.Kept }

// about is what the log says of a change.
func about(c leases.Change) []any {
	if c.ContainerID == "" && c.Veth == "" { // not of one attachment
		return []any{"reason", c.Why}
	}
	return []any{"container", c.ContainerID, "interface", c.IfName, "pod", c.Pod, "addresses", c.Addresses, "reason", c.Why}
}

// reconciled returns how often each action was taken, and how much only an operator can
// repair.
func (p *podLeases) reconciled() (actions map[string]uint64, unreconciled int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	actions = map[string]uint64{}
	for _, a := range []leases.Action{leases.Freed, leases.Adopted, leases.Rebuilt, leases.Rewired} {
		actions[string(a)] = p.done[a]
	}
	return actions, len(p.unreconciled)
}

// pool is what weft-cni takes addresses from by a plan: nothing if it is nil.
func (p *podLeases) pool(plan *control.Plan) ipam.Pool {
	node := nodefile.Node{Reserved: p.config.IPAM.Reserved, CooldownSeconds: int(p.config.IPAM.Cooldown.Seconds())}
	if plan != nil {
		node.PodCIDRs, node.Addresses = plan.PodCIDRs, plan.NodeAddresses
	}
	return leases.NodePool(node)
}

// usage reads the lease file of weftd's network, which takes a millisecond; plan is the applied
// one, or nil.
func (p *podLeases) usage(plan *control.Plan) (ipam.Usage, error) {
	store, err := ipam.Open(p.config.StateDir, p.config.CNI.Name)
	if err != nil {
		return ipam.Usage{}, err
	}
	return store.Usage(p.pool(plan))
}

// stranded returns the leases of pods whose addresses are outside this node's pod CIDRs: the
// node got others, and the pods must be made anew. Without a plan there are none.
func (p *podLeases) stranded(plan *control.Plan) ([]ipam.Lease, error) {
	if plan == nil {
		return nil, nil
	}
	store, err := ipam.Open(p.config.StateDir, p.config.CNI.Name)
	if err != nil {
		return nil, err
	}
	all, _, err := store.List()
	return slices.DeleteFunc(all, func(l ipam.Lease) bool { return !leases.Stranded(l, plan.PodCIDRs) }), err
}

// warnings says which pods are stranded, and what keeps new ones from being added; plan is the
// applied one, or nil.
func (p *podLeases) warnings(plan *control.Plan, stranded []ipam.Lease) []warning.Warning {
	var all []warning.Warning
	if err := ipam.CheckDir(p.config.StateDir); err != nil {
		all = append(all, warning.Warning{Code: "state_dir", Text: fmt.Sprintf("pods can't be added or removed: %v", err)})
	}
	if plan == nil {
		return all
	}
	for _, l := range stranded {
		all = append(all, warning.Warning{Code: "stranded_pod", Text: fmt.Sprintf("no other node reaches pod %s at %s: this node's pod CIDRs are now %s; delete the pod",
			cmp.Or(l.Pod, l.String()), control.Join(l.Addresses), control.Join(plan.PodCIDRs))})
	}
	store, err := ipam.Open(p.config.StateDir, p.config.CNI.Name)
	if err == nil {
		err = store.Available(p.pool(plan))
	}
	if errors.Is(err, ipam.ErrExhausted) {
		all = append(all, warning.Warning{Code: "pool_exhausted", Text: fmt.Sprintf("no pod can be added: %v; remove pods, or give the node more addresses", err)})
	}
	return all
}

// status is what `weft status` shows of them; plan is the applied one, or nil.
func (p *podLeases) status(plan *control.Plan) status.Leases {
	usage, err := p.usage(plan)
	p.mu.Lock()
	defer p.mu.Unlock()
	l := status.Leases{Held: usage.Leases, CoolingDown: usage.CoolingDown, Pools: append([]ipam.PoolUsage{}, usage.Pools...),
		Unreconciled: append([]string{}, p.unreconciled...)}
	if err != nil && len(l.Unreconciled) == 0 { // the next reconcile says what becomes of it
		l.Unreconciled = append(l.Unreconciled, err.Error())
	}
	return l
}
