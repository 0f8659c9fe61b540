// Package engine decides what a node must have, and whether it has it: which Plan to apply, whether
// pods may be added, whether weftd is ready, and what to log and to publish about that. Events come
// in, decisions come out. It does no I/O, reads no clock and starts nothing.
package engine

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"weft/control"
	"weft/peer"
)

// Engine is what is known after all events until now. Its methods must not be called at the same
// time.
type Engine struct {
	grace  time.Duration
	guard  control.Guard
	listed *control.Plan // of the newest good list of nodes, as the guard lets it through
	roams  []Roam
	proven Proven
	next   *control.Plan // listed, with the addresses of roaming peers and the proven ones: to apply

	active *control.Plan // as last applied; nil before
	since  time.Time     // when active was applied

	failing time.Time      // since when hostErr is not nil
	hostErr error          // why the host is not as active wants it
	had     []netip.Prefix // this node's pod CIDRs, as last listed

	refused    error // why the newest list is not used
	rejections int   // of lists

	fenced   error // why no pod may be added: this node's pod CIDR is another's now
	starting error // why pods can't be added yet; nil once they could
}

// New returns an engine that publishes that pods have no network when the host could not be made
// what it must be for longer than grace.
func New(grace time.Duration) *Engine {
	return &Engine{grace: grace, starting: errors.New("weftd is starting")}
}

// Configure says what this node knows of itself, before the first list of nodes. With holdKeys, a
// node whose key changes stays as it was until Confirm.
func (e *Engine) Configure(options control.Options, holdKeys bool) {
	e.guard.Options, e.guard.HoldKeys = options, holdKeys
}

// Roam is a peer that is not where the control source says.
type Roam struct {
	Key    peer.Fingerprint `json:"key"`
	Listed netip.AddrPort   `json:"listed"`
	Addr   netip.Addr       `json:"addr"`
}

// Proven are the further addresses at which peers have shown their keys.
type Proven map[netip.Addr]peer.Fingerprint

// Decision is what follows from an event, in this order.
type Decision struct {
	Withdraw bool // take this node's pod CIDRs from the plugin, and from the next weftd
	Logs     []Line
	Publish  *Reach // nil: nothing new
	Apply    bool   // the host may differ from what it must be
}

// Line is for the log.
type Line struct {
	Level   slog.Level
	Message string
	Args    []any

	// Limited says that it is about the list of nodes. Where nodes register, one that was taken
	// over can change it as often as it likes: such lines are limited.
	Limited bool

	// Quiet says that the log doesn't have it, only the journal, which is bounded by itself.
	Quiet bool
}

// Reach is what the control source publishes: the pod CIDRs that this node forwards with, and why
// pods have had no network for a while.
type Reach struct {
	PodCIDRs []netip.Prefix
	Down     string
}

// errNotApplied is why no pod can be added while there is a pod CIDR again, and the plugin
// does not have it yet.
var errNotApplied = errors.New("the new pod CIDR is not in use yet")

func (d *Decision) log(level slog.Level, message string, args ...any) {
	d.Logs = append(d.Logs, Line{Level: level, Message: message, Args: args})
}

func (d *Decision) logList(level slog.Level, message string, args ...any) {
	d.Logs = append(d.Logs, Line{Level: level, Message: message, Args: args, Limited: true})
}

// First returns the Plan to start with. Unless there is an error, Begin follows.
func (e *Engine) First(state control.State, now time.Time) (*control.Plan, error) {
	return e.guard.Next(state, now)
}

// Begin makes the Plan that First returned the one to apply. Before the start, this node had pod
// CIDRs, if any, and peers had proven addresses and roamed.
func (e *Engine) Begin(plan *control.Plan, had []netip.Prefix, before Proven, roams []Roam) (d Decision) {
	e.had, e.proven, e.roams = had, before, roams
	e.use(&d, plan)
	return d
}

// List takes what the control source says: a list of nodes, or why there is none. If it can't
// be used, the last good one stays.
func (e *Engine) List(state control.State, err error, now time.Time) (d Decision) {
	before, rejected := e.listed, e.Rejected()
	if errors.Is(err, control.ErrNoPodCIDR) {
		d.Withdraw, d.Apply = true, e.fenced == nil
		e.fenced = err
	}
	plan := before
	if err == nil {
		var next *control.Plan
		if next, err = e.guard.Next(state, now); err == nil {
			plan = next
		}
		for _, c := range e.guard.NewKeyChanges() {
			d.logList(slog.LevelWarn, "node key changed", "peer", c.Node, "known", c.Known, "listed", c.Listed, "held", c.Held)
		}
	}
	e.refused = err
	if err == nil && e.fenced != nil {
		e.fenced, d.Apply = errNotApplied, true
	}
	if plan != before {
		e.use(&d, plan)
	}
	e.logOutcome(&d, before, rejected)
	return d
}

// logOutcome logs what has become of a list of nodes.
func (e *Engine) logOutcome(d *Decision, before *control.Plan, rejected error) {
	same, now := before.Equal(e.listed), e.Rejected()
	if now != nil {
		e.rejections++
	}
	switch {
	case now != nil && (rejected == nil || now.Error() != rejected.Error()):
		d.logList(slog.LevelError, "node list rejected", "error", now)
	case now == nil && rejected != nil && same:
		d.logList(slog.LevelInfo, "node list accepted again")
	}
	if why := e.listed.Refused; why != nil && why.Error() != fmt.Sprint(before.Refused) {
		d.logList(slog.LevelWarn, "nodes in list rejected", "error", why)
	}
	if !same {
		d.Apply = true
		d.logList(slog.LevelInfo, "node list applied", "peers", len(e.listed.Peers), "prefixes", e.listed.Table.Size())
		d.logPeers(before, e.listed)
	}
}

// logPeers notes which peers have come and gone.
func (d *Decision) logPeers(before, now *control.Plan) {
	quiet := func(message string, of, unless *control.Plan) {
		known := make(map[string]bool, len(unless.Peers))
		for _, p := range unless.Peers {
			known[p.Name] = true
		}
		for _, p := range of.Peers {
			if !known[p.Name] {
				d.Logs = append(d.Logs, Line{Message: message, Args: []any{"peer", p.Name, "endpoint", p.Endpoint}, Quiet: true})
			}
		}
	}
	quiet("peer added", now, before)
	quiet("peer removed", before, now)
}

// use makes a Plan, with the peers that roam and the proven addresses, the one to apply. A roam
// ends when the control source lists another endpoint.
func (e *Engine) use(d *Decision, plan *control.Plan) {
	e.listed, e.next = plan, plan
	if len(e.had) > 0 && !slices.Equal(e.had, plan.PodCIDRs) {
		d.log(slog.LevelWarn, "this node's pod CIDRs changed", "before", control.Join(e.had), "now", control.Join(plan.PodCIDRs),
			"remedy", "delete the pods that weft status names as stranded")
	}
	e.had = plan.PodCIDRs
	e.roams = slices.DeleteFunc(e.roams, func(m Roam) bool {
		p := plan.Table.ByKey(m.Key)
		return p == nil || p.Endpoint != m.Listed
	})
	for _, m := range e.roams {
		roaming, err := e.next.WithEndpoint(m.Key, m.Addr)
		if err != nil {
			d.log(slog.LevelWarn, "peer roamed to taken address", "to", m.Addr, "error", err)
			continue
		}
		e.next = roaming
	}
	with, err := e.next.WithAddresses(e.proven)
	if err != nil { // no address is taken twice
		d.log(slog.LevelError, "proven addresses not used", "error", err)
		return
	}
	e.next = with
}

// Roamed sends a peer's datagrams where its authentic ones come from.
func (e *Engine) Roamed(p *peer.Peer, to netip.Addr) (d Decision) {
	e.roams = slices.DeleteFunc(e.roams, func(o Roam) bool { return o.Key == p.Key })
	if at := e.listed.Table.ByKey(p.Key); at != nil && at.Endpoint.Addr() != to {
		e.roams = append(e.roams, Roam{p.Key, at.Endpoint, to})
	}
	d.log(slog.LevelInfo, "peer roamed", "peer", p.Name, "from", p.Endpoint.Addr(), "to", to)
	e.use(&d, e.listed)
	d.Apply = true
	return d
}

// Proved puts addresses behind the peers that have proven them.
func (e *Engine) Proved(all Proven) (d Decision) {
	e.proven = all
	e.use(&d, e.listed)
	d.Apply = true
	return d
}

// Confirmation is what an operator has accepted: the removal of peers, and other keys of nodes.
type Confirmation struct {
	Withdrawn, Keys []string
	Peers           int
}

// Confirm accepts what the newest list of nodes says and the guard holds back.
func (e *Engine) Confirm() (c Confirmation, d Decision, err error) {
	c.Withdrawn = slices.Clone(e.guard.Kept())
	for _, change := range e.guard.KeyChanges() {
		c.Keys = append(c.Keys, change.Node)
	}
	if !e.guard.Waits() {
		return Confirmation{}, d, errors.New("nothing to confirm: no peers are kept, and no key has changed")
	}
	plan, err := e.guard.Confirm()
	if err != nil {
		return Confirmation{}, d, err
	}
	c.Peers = len(plan.Peers)
	before := e.listed
	e.use(&d, plan)
	d.Apply = true
	d.log(slog.LevelWarn, "node list confirmed", "withdrawn", len(c.Withdrawn), "keys", c.Keys, "peers", c.Peers)
	d.logPeers(before, plan)
	return c, d, nil
}

// Job is what is to be applied now.
type Job struct {
	Plan   *control.Plan
	News   bool // the data path does not have Plan yet
	Fenced bool // no pod may be added
}

// Job returns what is to be applied now. Applied follows.
func (e *Engine) Job() Job {
	return Job{e.next, e.next != e.active, e.fenced != nil && !errors.Is(e.fenced, errNotApplied)}
}

// Applied takes how a job has ended.
func (e *Engine) Applied(j Job, err error, now time.Time) (d Decision) {
	if e.active != j.Plan {
		e.active, e.since = j.Plan, now
	}
	e.hostErr = err
	if err == nil {
		e.failing = time.Time{}
		if !j.Fenced && j.Plan == e.next && errors.Is(e.fenced, errNotApplied) {
			e.fenced = nil
		}
		if e.fenced == nil && e.starting == nil {
			d.Publish = &Reach{j.Plan.PodCIDRs, ""}
		}
		return d
	}
	switch {
	case e.failing.IsZero():
		e.failing = now
	case e.starting == nil && now.Sub(e.failing) > e.grace:
		d.Publish = &Reach{j.Plan.PodCIDRs, err.Error()}
	}
	return d
}

// Waits takes why weftd can't start yet.
func (e *Engine) Waits(why error) { e.starting = why }

// Started says whether pods could be added at some time since the start.
func (e *Engine) Started() bool { return e.starting == nil }

// Ready takes whether the container runtime adds pods by weftd's conflist now that the host is in
// order. Without it no new pods come, but those that there are have their network.
func (e *Engine) Ready(err error) (d Decision) {
	e.starting = err
	if err == nil {
		d.Publish = &Reach{e.active.PodCIDRs, ""}
	}
	return d
}

// NotReady returns why no pod can be added, or nil.
func (e *Engine) NotReady() error { return cmp.Or(e.hostErr, e.fenced, e.starting) }

// Rejected returns why the newest list of nodes is not used, or not as a whole; nil if it is.
func (e *Engine) Rejected() error {
	kept := e.guard.Kept()
	switch {
	case len(kept) == 0:
		return e.refused
	case e.refused == nil:
		return keptError(kept, len(e.listed.Peers))
	}
	return fmt.Errorf("%w; and before, %w", e.refused, keptError(kept, len(e.listed.Peers)))
}

// Current says whether the newest list of nodes is applied as a whole, on the host too.
func (e *Engine) Current() bool {
	return e.active != nil && e.hostErr == nil && e.Rejected() == nil
}

// Kept returns the peers that the newest list of nodes removes, and that stay until Confirm.
func (e *Engine) Kept() []string { return e.guard.Kept() }

// RejectedNodes returns why some nodes of the list are no peers, or nil.
func (e *Engine) RejectedNodes() error {
	if e.listed == nil {
		return nil
	}
	return e.listed.Refused
}

// keptError says that peers are kept though the control source doesn't list them.
func keptError(kept []string, peers int) error {
	return fmt.Errorf("it removes %d of %d peers (%s), which are kept; run `weft confirm` to accept their removal", len(kept), peers, control.Few(kept))
}

// Snapshot returns the list of nodes to start with next time, if it is not the one that was saved:
// nil if there is nothing to save. While pods can't be added there is none: in it, this node has a
// pod CIDR that may be another's.
func (e *Engine) Snapshot(saved *control.Plan) (state control.State, plan *control.Plan) {
	switch {
	case e.fenced != nil:
		return control.State{}, nil
	case saved == e.listed:
		return control.State{}, saved
	}
	return e.guard.Snapshot(), e.listed
}

// Active returns the Plan that was applied last, and when it was first; nil before.
func (e *Engine) Active() (*control.Plan, time.Time) { return e.active, e.since }

// Roams returns the peers that are not where the control source says.
func (e *Engine) Roams() []Roam { return slices.Clone(e.roams) }

// Next returns the Plan to apply; nil before Begin.
func (e *Engine) Next() *control.Plan { return e.next }

// HostErr returns why the host is not as it must be, or nil.
func (e *Engine) HostErr() error { return e.hostErr }

// Rejections returns how many lists of nodes were not used as a whole.
func (e *Engine) Rejections() int { return e.rejections }

// Origin names where the list of nodes is kept.
func (e *Engine) Origin() string { return e.guard.State().Origin }

// KeyChanges returns the key changes that were not confirmed yet, and how many there were.
func (e *Engine) KeyChanges() (waiting []control.KeyChange, total int) {
	return e.guard.KeyChanges(), e.guard.KeyChangesTotal()
}
