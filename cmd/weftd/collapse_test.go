package main_test

import (
	"strings"
	"testing"

	"weft/internal/testnet"
)

// TestAListThatCollapsesWaitsUntilItIsConfirmed: a control source that suddenly knows
// hardly any nodes has lost its memory, and must not take the cluster down.
func TestAListThatCollapsesWaitsUntilItIsConfirmed(t *testing.T) {
	t.Parallel()
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 4})
	node := cluster.Nodes()[0]
	pod1, pod4 := addPod(t, node, "pod1"), addPod(t, cluster.Nodes()[3], "pod4")
	before := network(t, node.Namespace)
	list := func(nodes int) {
		t.Helper()
		var entries []testnet.NodeEntry
		for _, n := range cluster.Nodes()[:nodes] {
			entries = append(entries, n.Entry())
		}
		if err := node.SetNodes(entries); err != nil {
			t.Fatal(err)
		}
	}
	if got := weft(t, node, "confirm"); got.status != 1 || !strings.Contains(got.stderr, "nothing to confirm: no peers are kept, and no key has changed") {
		t.Errorf("nothing waits, but: exit status %d, %s%s", got.status, got.stdout, got.stderr)
	}

	list(2)
	eventuallyCurrent(t, node, "0", "1")
	expectSame(t, "the node's network", before, network(t, node.Namespace))
	expectPings(t, pod1, pod4)
	shown := weft(t, node, "status")
	for _, part := range []string{"removes 2 of 3 peers", "weft confirm"} {
		if !strings.Contains(shown.stdout, part) {
			t.Errorf("weft status does not report %q:\n%s", part, shown.stdout)
		}
	}

	// The source remembers, and nothing has happened.
	list(4)
	eventuallyCurrent(t, node, "1", "1")
	if got := weft(t, node, "confirm"); got.status != 1 {
		t.Errorf("what waited is applied after all: %s", got.stdout)
	}
	expectSame(t, "the node's network", before, network(t, node.Namespace))

	// It was meant.
	list(2)
	eventuallyCurrent(t, node, "0", "2")
	// Meanwhile the list is invalid as well, and still is after the confirmation.
	write(t, nodesFile(node), "nonsense")
	eventuallyCurrent(t, node, "0", "3")
	shown = weft(t, node, "status")
	for _, part := range []string{"removes 2 of 3 peers", "must be a mapping"} {
		if !strings.Contains(shown.stdout, part) {
			t.Errorf("weft status does not report %q:\n%s", part, shown.stdout)
		}
	}
	if got := weft(t, node, "confirm"); got.status != 0 || got.stdout != "2 peers removed, 1 left\n" {
		t.Errorf("exit status %d, %s%s", got.status, got.stdout, got.stderr)
	}
	eventuallyCurrent(t, node, "0", "3")
	list(2)
	eventuallyCurrent(t, node, "1", "3")
	if peers := report(t, node).Peers; len(peers) != 1 {
		t.Errorf("%d peers are left, want 1", len(peers))
	}
}
