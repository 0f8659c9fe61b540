package control

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"weft/internal/warning"
	"weft/peer"
)

// KeyChange is a node that the control source lists with another key than before. Whoever
// replaces a node's key in the control source becomes that node.
type KeyChange struct {
	Node          string
	Known, Listed peer.Fingerprint
	At            time.Time

	// Held says that the known key stays in use until Guard.Confirm.
	Held bool
}

const (
	// alarmedFor is how long a key change that was accepted stays an alarm, unless
	// Guard.Confirm ends that.
	alarmedFor = 24 * time.Hour

	// mostKnown bounds the keys that are remembered of nodes which are no longer listed.
	mostKnown = 1 << 16
)

// Warning returns the change as an operator needs to know it.
func (c KeyChange) Warning() warning.Warning {
	w := warning.Warning{Code: "key_changed", Text: fmt.Sprintf("the key of node %s changed from %s to %s at %s; if that was not intended, remove the node from the control source; otherwise accept it with `weft confirm`",
		c.Node, short(c.Known), short(c.Listed), c.At.UTC().Format(time.RFC3339))}
	if c.Held {
		w = warning.Warning{Code: "key_change_held", Text: fmt.Sprintf("the key of node %s is %s in the control source, but was %s, which stays in use (control.trustKeyChange: never); if the key was replaced on purpose, accept it with `weft confirm`",
			c.Node, short(c.Listed), short(c.Known))}
	}
	return w
}

// short is enough of a fingerprint to compare by eye.
func short(f peer.Fingerprint) string { return f.String()[:16] + "…" }

// keyChanges are what a Guard remembers of nodes' keys.
type keyChanges struct {
	known map[string]peer.Fingerprint // of every node that was accepted, though it may be gone
	noted map[string]KeyChange        // what was not confirmed yet
	fresh []KeyChange                 // of the last State
	total int
}

// note compares a State's keys with those that are known, and returns the names of the nodes
// whose keys differ. This node's own key is known by its configuration.
func (k *keyChanges) note(state State, self string, hold bool, now time.Time) map[string]bool {
	k.fresh = nil
	differ := map[string]bool{}
	for _, n := range state.Nodes {
		known, ok := k.known[n.Name]
		if !ok || n.Name == self || n.Key == known || n.Key == (peer.Fingerprint{}) {
			continue
		}
		differ[n.Name] = true
		if before, ok := k.noted[n.Name]; ok && before.Listed == n.Key && before.Known == known {
			continue
		}
		change := KeyChange{Node: n.Name, Known: known, Listed: n.Key, At: now, Held: hold}
		k.fresh = append(k.fresh, change)
		k.total++
		if k.noted == nil {
			k.noted = map[string]KeyChange{}
		}
		k.noted[n.Name] = change
	}
	for name, change := range k.noted {
		change.Held = hold && differ[name]
		k.noted[name] = change
		if !change.Held && now.Sub(change.At) > alarmedFor {
			delete(k.noted, name)
		}
	}
	return differ
}

// learn remembers the keys of a State that is in use now.
func (k *keyChanges) learn(plan *Plan, gone map[string]peer.Fingerprint) {
	if k.known == nil {
		k.known = maps.Clone(gone)
	}
	if k.known == nil {
		k.known = make(map[string]peer.Fingerprint, len(plan.Peers))
	}
	if len(k.known) > mostKnown+len(plan.Peers) {
		maps.DeleteFunc(k.known, func(name string, _ peer.Fingerprint) bool { return plan.peer(name) == nil })
	}
	for _, p := range plan.Peers {
		if p.Key != (peer.Fingerprint{}) {
			k.known[p.Name] = p.Key
		}
	}
}

// gone returns the keys of nodes that a State lists no more.
func (k *keyChanges) gone(state State) map[string]peer.Fingerprint {
	gone := maps.Clone(k.known)
	for _, n := range state.Nodes {
		delete(gone, n.Name)
	}
	return gone
}

// hold returns the State with the nodes that differ as they were in the one before; those
// that were not in it are left out.
func hold(state, before State, differ map[string]bool) State {
	if len(differ) == 0 {
		return state
	}
	were := make(map[string]Node, len(differ))
	for _, n := range before.Nodes {
		if differ[n.Name] {
			were[n.Name] = n
		}
	}
	nodes := make([]Node, 0, len(state.Nodes))
	for _, n := range state.Nodes {
		if was, ok := were[n.Name]; ok {
			n = was
		} else if differ[n.Name] {
			continue
		}
		nodes = append(nodes, n)
	}
	state.Nodes = nodes
	return state
}

// KeyChanges returns those that were not confirmed yet, sorted by node.
func (g *Guard) KeyChanges() []KeyChange {
	return slices.SortedFunc(maps.Values(g.keys.noted), func(a, b KeyChange) int { return cmp.Compare(a.Node, b.Node) })
}

// NewKeyChanges returns those that the last call of Next has found.
func (g *Guard) NewKeyChanges() []KeyChange { return g.keys.fresh }

// KeyChangesTotal returns how many there were since the start.
func (g *Guard) KeyChangesTotal() int { return g.keys.total }

// Waits reports whether Confirm would change anything.
func (g *Guard) Waits() bool { return len(g.kept) > 0 || len(g.keys.noted) > 0 }
