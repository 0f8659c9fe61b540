package control

import (
	"cmp"
	"slices"
	"time"

	"weft/peer"
)

// Guard makes Plans out of States, one after the other, and keeps a control source that
// has lost its memory from taking the cluster down: peers that it suddenly lists no more
// are kept until they are listed again, or an operator accepts their removal. What else
// the State says comes into force at once. Keys that change are noted. The zero Guard with
// Options is ready for use.
type Guard struct {
	Options Options

	// HoldKeys has a node whose key changes stay as it was until Confirm.
	HoldKeys bool

	newest State
	state  State // newest, with what is kept or held
	plan   *Plan // of state
	kept   []string

	// gone are the withdrawals of late that were not kept.
	gone []withdrawal

	keys keyChanges
}

type withdrawal struct {
	node string
	at   time.Time
}

const (
	// Withdrawals are kept if they are at least several and more than half of all peers,
	// counting those within the time called late: a list may also be emptied bit by bit.
	several = 2
	late    = time.Minute
)

// Next takes what the source says now, and returns the Plan to apply. An error
// means that the last one stands.
func (g *Guard) Next(state State, now time.Time) (*Plan, error) {
	newest := state
	if differ := g.keys.note(state, g.Options.Node, g.HoldKeys, now); g.HoldKeys {
		state = hold(state, g.state, differ)
	}
	plan, err := NewPlan(state, g.Options)
	if err != nil {
		return nil, err
	}
	if g.plan == nil {
		g.accept(newest, state, plan)
		return plan, nil
	}
	g.gone = slices.DeleteFunc(g.gone, func(w withdrawal) bool { return now.Sub(w.at) > late || plan.peer(w.node) != nil })
	withdrawn := g.plan.Withdrawn(plan)
	gone := len(g.gone) + len(withdrawn)
	if len(g.kept) == 0 && (gone < several || 2*gone <= len(g.plan.Peers)+len(g.gone)) {
		for _, node := range withdrawn {
			g.gone = append(g.gone, withdrawal{node, now})
		}
		g.accept(newest, state, plan)
		return plan, nil
	}
	return g.keep(newest, state, withdrawn)
}

func (g *Guard) accept(newest, state State, plan *Plan) {
	g.keys.learn(plan, state.Gone)
	g.newest, g.state, g.plan, g.kept = newest, state, plan, nil
}

// keep has the nodes that were withdrawn stay, as far as they contradict no other one.
func (g *Guard) keep(newest, state State, withdrawn []string) (*Plan, error) {
	with := State{Origin: state.Origin, Nodes: slices.Clone(state.Nodes), Registered: true, Refused: state.Refused}
	for _, n := range g.state.Nodes {
		// A peer may be listed still, but refused. What was applied is kept, and nothing else.
		if _, ok := slices.BinarySearch(withdrawn, n.Name); ok && equalPeers(newPeer(&n), g.plan.peer(n.Name)) {
			with.Nodes = append(with.Nodes, n)
		}
	}
	plan, err := NewPlan(with, g.Options)
	if err != nil {
		return nil, err
	}
	g.keys.learn(plan, nil)
	g.newest, g.state, g.plan = newest, with, plan
	g.kept = slices.DeleteFunc(withdrawn, func(node string) bool { return plan.peer(node) == nil })
	return plan, nil
}

// Kept returns the names of the peers that are kept though the newest State doesn't list
// them, sorted.
func (g *Guard) Kept() []string { return g.kept }

// State returns what the last Plan was made of.
func (g *Guard) State() State { return g.state }

// Snapshot is State with all that another Guard needs to go on from there.
func (g *Guard) Snapshot() State {
	state := g.state
	state.Gone = g.keys.gone(state)
	return state
}

// Confirm returns the Plan of the newest State without the peers that were kept, and with the
// keys that were held back. No key change is an alarm any more.
func (g *Guard) Confirm() (*Plan, error) {
	plan, err := NewPlan(g.newest, g.Options)
	if err != nil {
		return nil, err
	}
	g.accept(g.newest, g.newest, plan)
	g.gone, g.keys.noted = nil, nil
	return plan, nil
}

// peer returns the peer with a name, or nil.
func (p *Plan) peer(name string) *peer.Peer {
	i, ok := slices.BinarySearchFunc(p.Peers, name, func(e *peer.Peer, name string) int { return cmp.Compare(e.Name, name) })
	if !ok {
		return nil
	}
	return p.Peers[i]
}
