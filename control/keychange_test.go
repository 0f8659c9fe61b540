package control

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"weft/peer"
)

// withKeys is a State of node0, which is this node, and nodes with the given keys.
func withKeys(keys map[int]byte) State {
	var numbers []int
	for n := range keys {
		numbers = append(numbers, n)
	}
	state := numbered(numbers...)
	state.Nodes[0].Key = peer.Fingerprint{0xff}
	for i, n := range numbers {
		state.Nodes[i+1].Key = peer.Fingerprint{keys[n]}
	}
	return state
}

// TestChangedKeysAreAlarmed: however a key of a known node comes to be another one, it is
// noted once, and counts at once or, with HoldKeys, after Confirm.
func TestChangedKeysAreAlarmed(t *testing.T) {
	type keys = map[int]byte
	for _, tt := range []struct {
		name    string
		lists   []keys
		changes int          // in all
		alarms  string       // names
		held    string       // names, with HoldKeys
		now     map[int]byte // peers' keys at once
		holding map[int]byte // peers' keys with HoldKeys
	}{
		{"nothing changes", []keys{{1: 1, 2: 2}, {1: 1, 2: 2}}, 0, "", "", keys{1: 1, 2: 2}, keys{1: 1, 2: 2}},
		{"a node joins", []keys{{1: 1}, {1: 1, 2: 2}}, 0, "", "", keys{1: 1, 2: 2}, keys{1: 1, 2: 2}},
		{"a key changes", []keys{{1: 1, 2: 2}, {1: 1, 2: 3}}, 1, "node2", "node2", keys{1: 1, 2: 3}, keys{1: 1, 2: 2}},
		{"the same list comes again", []keys{{1: 1, 2: 2}, {1: 1, 2: 3}, {1: 1, 2: 3}}, 1, "node2", "node2", keys{1: 1, 2: 3}, keys{1: 1, 2: 2}},
		{"all keys change", []keys{{1: 1, 2: 2}, {1: 4, 2: 3}}, 2, "node1 node2", "node1 node2", keys{1: 4, 2: 3}, keys{1: 1, 2: 2}},
		{"two nodes swap their keys", []keys{{1: 1, 2: 2}, {1: 2, 2: 1}}, 2, "node1 node2", "node1 node2", keys{1: 2, 2: 1}, keys{1: 1, 2: 2}},
		{"a node goes and comes back with another", []keys{{1: 1, 2: 2, 3: 3}, {1: 1, 3: 3}, {1: 1, 2: 4, 3: 3}}, 1, "node2", "node2", keys{1: 1, 2: 4, 3: 3}, keys{1: 1, 3: 3}},
		{"a node goes and comes back the same", []keys{{1: 1, 2: 2, 3: 3}, {1: 1, 3: 3}, {1: 1, 2: 2, 3: 3}}, 0, "", "", keys{1: 1, 2: 2, 3: 3}, keys{1: 1, 2: 2, 3: 3}},
	} {
		for _, holds := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, hold %v", tt.name, holds), func(t *testing.T) {
				g := newGuard()
				g.Options.Key, g.HoldKeys = peer.Fingerprint{0xff}, holds
				var plan *Plan
				fresh := 0
				for _, list := range tt.lists {
					var err error
					if plan, err = g.Next(withKeys(list), noon); err != nil {
						t.Fatal(err)
					}
					fresh += len(g.NewKeyChanges())
				}
				want, held := tt.now, ""
				if holds {
					want, held = tt.holding, tt.held
				}
				if got := peerKeys(plan); !maps.Equal(got, want) {
					t.Errorf("the peers' keys are %v, want %v", got, want)
				}
				alarms, holding := namesOf(g.KeyChanges())
				if fresh != tt.changes || g.KeyChangesTotal() != tt.changes || alarms != tt.alarms || holding != held {
					t.Errorf("%d changes (%d in all), alarms %q, held %q; want %d, %q, %q", fresh, g.KeyChangesTotal(), alarms, holding, tt.changes, tt.alarms, held)
				}
				if g.Waits() != (alarms != "") {
					t.Errorf("it waits for a confirmation: %v", g.Waits())
				}
				plan, err := g.Confirm()
				if err != nil {
					t.Fatal(err)
				}
				if got, last := peerKeys(plan), tt.lists[len(tt.lists)-1]; !maps.Equal(got, last) || g.Waits() {
					t.Errorf("after a confirmation the peers' keys are %v, want %v; waits: %v", got, last, g.Waits())
				}
				if _, err := g.Next(withKeys(tt.lists[len(tt.lists)-1]), noon); err != nil || len(g.NewKeyChanges()) > 0 {
					t.Errorf("%v; what was confirmed is noted again: %v", err, g.NewKeyChanges())
				}
			})
		}
	}
}

func peerKeys(p *Plan) map[int]byte {
	keys := map[int]byte{}
	for _, peer := range p.Peers {
		var n int
		_, _ = fmt.Sscanf(peer.Name, "node%d", &n)
		keys[n] = peer.Key[0]
	}
	return keys
}

func namesOf(changes []KeyChange) (all, held string) {
	for _, c := range changes {
		all += " " + c.Node
		if c.Held {
			held += " " + c.Node
		}
	}
	return strings.TrimSpace(all), strings.TrimSpace(held)
}

// TestKeysOutliveARestart: a node that was gone before a restart, and comes back with another
// key after it, is still known.
func TestKeysOutliveARestart(t *testing.T) {
	before := newGuard()
	for _, list := range []map[int]byte{{1: 1, 2: 2, 3: 3}, {1: 1, 3: 3}} {
		if _, err := before.Next(withKeys(list), noon); err != nil {
			t.Fatal(err)
		}
	}
	after := newGuard()
	for _, state := range []State{before.Snapshot(), withKeys(map[int]byte{1: 4, 2: 5, 3: 3})} {
		if _, err := after.Next(state, noon); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := namesOf(after.KeyChanges()); got != "node1 node2" {
		t.Errorf("alarms: %q", got)
	}
}

// TestKeyAlarmsEnd when they were accepted and are a day old, and held ones never do.
func TestKeyAlarmsEnd(t *testing.T) {
	for _, holds := range []bool{false, true} {
		g := newGuard()
		g.HoldKeys = holds
		for _, list := range []map[int]byte{{1: 1}, {1: 2}} {
			if _, err := g.Next(withKeys(list), noon); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := g.Next(withKeys(map[int]byte{1: 2}), noon.Add(25*time.Hour)); err != nil {
			t.Fatal(err)
		}
		if g.Waits() != holds {
			t.Errorf("hold %v: after a day: %v", holds, g.KeyChanges())
		}
	}
}

func TestKeyChangesAreDescribed(t *testing.T) {
	c := KeyChange{Node: "node2", Known: peer.Fingerprint{1}, Listed: peer.Fingerprint{2}, At: noon}
	for _, tt := range []struct {
		held       bool
		code, text string
	}{
		{false, "key_changed", "the key of node node2 changed from 0100000000000000… to 0200000000000000… at 2026-01-01T12:00:00Z; "},
		{true, "key_change_held", "the key of node node2 is 0200000000000000… in the control source, but was 0100000000000000…, which stays in use (control.trustKeyChange: never); "},
	} {
		c.Held = tt.held
		if w := c.Warning(); w.Code != tt.code || !strings.HasPrefix(w.Text, tt.text) || !strings.Contains(w.Text, "`weft confirm`") {
			t.Errorf("%+v", w)
		}
	}
}
