package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/peer"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// numbered is a State of node0, which is this node, and the given others.
func numbered(numbers ...int) State {
	state := State{Registered: true}
	for _, n := range append([]int{0}, numbers...) {
		state.Nodes = append(state.Nodes, node(n, fmt.Sprintf("node%d", n), fmt.Sprintf("192.168.77.%d:9338", n+1), fmt.Sprintf("10.244.%d.0/24", n)))
	}
	return state
}

func newGuard() *Guard { return &Guard{Options: Options{Node: "node0", ClusterCIDRs: clusterCIDRs}} }

// next puts a State of the numbered peers before the guard.
func (g *Guard) next(t *testing.T, after time.Duration, numbers ...int) (peers []string) {
	t.Helper()
	plan, err := g.Next(numbered(numbers...), noon.Add(after))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plan.Peers {
		peers = append(peers, strings.TrimPrefix(p.Name, "node"))
	}
	return peers
}

func count(n int) (numbers []int) {
	for i := range n {
		numbers = append(numbers, i+1)
	}
	return numbers
}

func TestMostPeersAreNotWithdrawn(t *testing.T) {
	for _, tt := range []struct {
		from, to int
		keeps    bool
	}{{1, 0, false}, {2, 1, false}, {2, 0, true}, {3, 2, false}, {3, 1, true}, {4, 2, false}, {4, 1, true}, {100, 50, false}, {100, 49, true}, {0, 5, false}} {
		g := newGuard()
		g.next(t, 0, count(tt.from)...)
		peers := g.next(t, 0, count(tt.to)...)
		if keeps := len(g.Kept()) > 0; keeps != tt.keeps || keeps && len(peers) != tt.from || !keeps && len(peers) != tt.to {
			t.Errorf("from %d peers to %d: there are %s, kept are %s", tt.from, tt.to, peers, g.Kept())
		}
	}
}

func TestAListThatIsEmptiedBitByBitIsKeptToo(t *testing.T) {
	g := newGuard()
	g.next(t, 0, 1, 2, 3, 4)
	g.next(t, 0, 2, 3, 4)
	g.next(t, time.Second, 3, 4)
	if peers := g.next(t, 2*time.Second, 4); !slices.Equal(peers, []string{"3", "4"}) || !slices.Equal(g.Kept(), []string{"node3"}) {
		t.Errorf("there are %s, kept are %s", peers, g.Kept())
	}

	g = newGuard()
	g.next(t, 0, 1, 2, 3, 4)
	for i, numbers := range [][]int{{2, 3, 4}, {3, 4}, {4}, {}} {
		if peers := g.next(t, time.Duration(i)*2*time.Minute, numbers...); len(peers) != len(numbers) {
			t.Errorf("one in two minutes: there are %s, and not %d", peers, numbers)
		}
	}
}

func TestWhatElseTheListSaysComesIntoForce(t *testing.T) {
	g := newGuard()
	g.next(t, 0, 1, 2, 3)
	if peers := g.next(t, 0, 7, 8); !slices.Equal(peers, []string{"1", "2", "3", "7", "8"}) || len(g.Kept()) != 3 {
		t.Errorf("there are %s, kept are %s", peers, g.Kept())
	}
	if got := len(g.State().Nodes); got != 6 {
		t.Errorf("%d nodes in the snapshot, want 6", got)
	}
	// Once some are kept, all are, however few go.
	if peers := g.next(t, 0, 7); len(peers) != 5 {
		t.Errorf("there are %s", peers)
	}
	// One comes back: it is kept no longer. The others are, though they are few by now.
	g.next(t, 0, 3, 7)
	if peers := g.next(t, time.Hour, 3, 7, 9); !slices.Equal(peers, []string{"1", "2", "3", "7", "8", "9"}) || !slices.Equal(g.Kept(), []string{"node1", "node2", "node8"}) {
		t.Errorf("there are %s, kept are %s", peers, g.Kept())
	}
	if g.next(t, 0, 1, 2, 3, 7, 8, 9); len(g.Kept()) != 0 {
		t.Errorf("all are back, but kept are %s", g.Kept())
	}
}

func TestAKeptPeerGivesWayToOneThatIsListed(t *testing.T) {
	g := newGuard()
	g.next(t, 0, 1, 2)
	reborn := numbered(1)
	reborn.Nodes[1].Name = "reborn"
	plan, err := g.Next(reborn, noon)
	if err != nil || len(plan.Peers) != 2 || plan.Peers[1].Name != "reborn" || !slices.Equal(g.Kept(), []string{"node2"}) {
		t.Errorf("%v: %v; kept are %s", err, plan.Peers, g.Kept())
	}
}

func TestConfirmLetsGoOfWhatIsKept(t *testing.T) {
	g := newGuard()
	g.next(t, 0, 1, 2, 3)
	g.next(t, 0, 3)
	plan, err := g.Confirm()
	if err != nil || len(plan.Peers) != 1 || len(g.Kept()) != 0 || len(g.State().Nodes) != 2 {
		t.Errorf("%v: %v; kept are %s", err, plan.Peers, g.Kept())
	}
}

func TestAStateWithoutThisNodeChangesNothing(t *testing.T) {
	g := newGuard()
	g.next(t, 0, 1, 2, 3)
	for _, state := range []State{{Registered: true}, {Registered: true, Nodes: numbered(1, 2).Nodes[1:]}} {
		if _, err := g.Next(state, noon); err == nil {
			t.Error("accepted")
		}
	}
	if got := len(g.State().Nodes); got != 4 || len(g.Kept()) > 0 {
		t.Errorf("%d nodes, kept are %s", got, g.Kept())
	}
}

func TestANodeThatMakesItselfInvalidIsWithdrawn(t *testing.T) {
	g := newGuard()
	g.next(t, 0, 1, 2, 3)
	state := numbered(1, 2, 3)
	state.Nodes[2].VTEPMAC = peer.MAC{1}
	plan, err := g.Next(state, noon)
	if err != nil || len(plan.Peers) != 2 || plan.Refused == nil {
		t.Error(errors.Join(err, plan.Refused), plan.Peers)
	}
}

// TestRejectedPeersAreKeptOnce, however often the list comes.
func TestRejectedPeersAreKeptOnce(t *testing.T) {
	g := newGuard()
	g.next(t, 0, 1, 2, 3)
	wrong := numbered(1, 2, 3)
	for i := range wrong.Nodes[1:] {
		wrong.Nodes[i+1].VTEPMAC = peer.MAC{1}
	}
	for range 3 {
		plan, err := g.Next(wrong, noon)
		if err != nil || len(plan.Peers) != 3 || len(g.Kept()) != 3 || plan.Peers[0].Kernel {
			t.Fatalf("%v: %v; kept are %s", err, plan.Peers, g.Kept())
		}
		if got := len(g.State().Nodes); got != 7 {
			t.Fatalf("%d nodes in the snapshot; want the 4 that are listed and the 3 that are kept", got)
		}
	}
}
