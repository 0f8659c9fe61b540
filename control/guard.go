package control

import (
	"cmp"
	"slices"
	"time"

	"weft/encap"
)

// Guard makes Plans out of States, one after the other, and keeps a control source that
// has lost its memory from taking the cluster down: peers that it suddenly lists no more
// are kept until they are listed again, or somebody confirms that they are gone. What else
// the State says comes into force at once. The zero Guard with Options is ready for use.
type Guard struct {
	Options Options

	newest State
	state  State // newest, with what is kept
	plan   *Plan // of state
	kept   []string

	// gone are the withdrawals of late that were not kept.
	gone []withdrawal
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

// Next takes what the source says now, and returns the Plan to put into force. An error
// means that the last one stands.
func (g *Guard) Next(state State, now time.Time) (*Plan, error) {
	plan, err := NewPlan(state, g.Options)
	if err != nil {
		return nil, err
	}
	if g.plan == nil {
		g.accept(state, plan)
		return plan, nil
	}
	g.gone = slices.DeleteFunc(g.gone, func(w withdrawal) bool { return now.Sub(w.at) > late || plan.peer(w.node) != nil })
	withdrawn := g.plan.Withdrawn(plan)
	gone := len(g.gone) + len(withdrawn)
	if len(g.kept) == 0 && (gone < several || 2*gone <= len(g.plan.Peers)+len(g.gone)) {
		for _, node := range withdrawn {
			g.gone = append(g.gone, withdrawal{node, now})
		}
		g.accept(state, plan)
		return plan, nil
	}
	return g.keep(state, withdrawn)
}

func (g *Guard) accept(state State, plan *Plan) {
	g.newest, g.state, g.plan, g.kept = state, state, plan, nil
}

// keep has the nodes that were withdrawn stay, as far as they contradict no other one.
func (g *Guard) keep(state State, withdrawn []string) (*Plan, error) {
	with := State{Origin: state.Origin, Nodes: slices.Clone(state.Nodes), Registered: true, Refused: state.Refused}
	for _, n := range g.state.Nodes {
		// A peer may be listed still, but refused. What was in force is kept, and nothing else.
		if _, ok := slices.BinarySearch(withdrawn, n.Name); ok && equalPeers(newPeer(&n), g.plan.peer(n.Name)) {
			with.Nodes = append(with.Nodes, n)
		}
	}
	plan, err := NewPlan(with, g.Options)
	if err != nil {
		return nil, err
	}
	g.newest, g.state, g.plan = state, with, plan
	g.kept = slices.DeleteFunc(withdrawn, func(node string) bool { return plan.peer(node) == nil })
	return plan, nil
}

// Kept returns the names of the peers that are kept though the newest State doesn't list
// them, sorted.
func (g *Guard) Kept() []string { return g.kept }

// State returns what the last Plan was made of.
func (g *Guard) State() State { return g.state }

// Confirm returns the Plan of the newest State without the peers that were kept.
func (g *Guard) Confirm() (*Plan, error) {
	plan, err := NewPlan(g.newest, g.Options)
	if err != nil {
		return nil, err
	}
	g.accept(g.newest, plan)
	g.gone = nil
	return plan, nil
}

// peer returns the peer with a name, or nil.
func (p *Plan) peer(name string) *encap.Peer {
	i, ok := slices.BinarySearchFunc(p.Peers, name, func(e *encap.Peer, name string) int { return cmp.Compare(e.Name, name) })
	if !ok {
		return nil
	}
	return p.Peers[i]
}
