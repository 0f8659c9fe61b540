package cniplugin

import (
	"fmt"
	"runtime"
	"testing"

	"weft/cniplugin/wiring"
	"weft/internal/nodefile"
	"weft/ipam"
)

// cooling returns how many addresses of the network cool down.
func (n *node) cooling() int {
	n.t.Helper()
	store, err := ipam.Open(n.stateDir, "weft")
	if err != nil {
		n.t.Fatal(err)
	}
	_, cooling, err := store.List()
	if err != nil {
		n.t.Fatal(err)
	}
	return len(cooling)
}

// An ADD that does not complete costs the pool no address: whether it fails or is killed,
// and whichever of DEL, GC and weftd cleans up.
func TestIncompleteADDsNeedNoCooldown(t *testing.T) {
	const last = "mark the veth as complete"
	kill := func(wiring.Step) error { runtime.Goexit(); return nil }
	fail := func(wiring.Step) error { return errKilled }
	nothing := func(*node, namespace) {}
	for _, tt := range []struct {
		name    string
		at      string
		do      func(wiring.Step) error
		then    func(n *node, pod namespace)
		cooling int
	}{
		{"fails at once", "make the veth (its name must be free in the pod)", fail, nothing, 0},
		{"fails at the last step", last, fail, nothing, 0},
		{"killed, then DEL", last, kill, func(n *node, pod namespace) {
			if err := n.call(n.plugin.Del, n.args("pod", pod.Path())); err != nil {
				n.t.Error(err)
			}
		}, 0},
		{"killed, then weftd", last, kill, func(n *node, _ namespace) { n.reconcile() }, 0},
		{"killed, then GC", last, kill, func(n *node, _ namespace) {
			if err := n.call(n.plugin.GC, n.args("", "")); err != nil {
				n.t.Error(err)
			}
		}, 0},
		{"complete, then DEL", "", nil, func(n *node, pod namespace) {
			if err := n.call(n.plugin.Del, n.args("pod", pod.Path())); err != nil {
				n.t.Error(err)
			}
		}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, pod := newNode(t, families["dual stack"]...), newNamespace(t)
			n.describeNode(func(node *nodefile.Node) { node.CooldownSeconds = 120 })
			n.plugin.runStep = func(s wiring.Step) error {
				if s.What == tt.at {
					return tt.do(s)
				}
				return s.Do()
			}
			_ = n.call(n.plugin.Add, n.args("pod", pod.Path()))
			tt.then(n, pod)
			n.requireNothingLeft()
			if got := n.cooling(); got != tt.cooling {
				t.Errorf("%d addresses cool down, want %d", got, tt.cooling)
			}
		})
	}
}

// Sandboxes that fail after ADD, one after the other, leave an address for the next pod.
func TestARetryStormLeavesAnAddress(t *testing.T) {
	n, pod := newNode(t, "10.244.1.0/29", "fd00:244:1::/125"), newNamespace(t)
	n.describeNode(func(node *nodefile.Node) { node.CooldownSeconds = 120 })
	for i := range 12 {
		id := fmt.Sprintf("sandbox%d", i)
		if err := n.call(n.plugin.Add, n.args(id, pod.Path())); err != nil {
			t.Fatalf("ADD %d: %v", i, err)
		}
		if err := n.call(n.plugin.Del, n.args(id, pod.Path())); err != nil {
			t.Fatal(err)
		}
	}
}
