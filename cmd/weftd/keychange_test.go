package main_test

import (
	"fmt"
	"strings"
	"testing"

	"weft/internal/testnet"
)

// TestAChangedKeyWaitsInEtcd: another key for a known node in the registry is an alarm on
// every other node, and with trustKeyChange never it counts after a confirmation only.
func TestAChangedKeyWaitsInEtcd(t *testing.T) {
	t.Parallel()
	holding := map[string]bool{"node1": true}
	c := newEtcdCluster(t, 3, testnet.EtcdOptions{Members: 1}, func(weft map[string]any) {
		if holding[weft["node"].(string)] {
			weft["control"].(map[string]any)["trustKeyChange"] = "never"
		}
	})
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventuallyPeers(t, 2, c.Nodes()...)
	victim := c.Nodes()[2]
	if err := victim.Stop(t.Context()); err != nil { // or it would write its own key again
		t.Fatal(err)
	}
	before, other := victim.Entry().Key, strings.Repeat("ab", 32)
	entry := c.ctl(t, "get", "--print-value-only", "/weft/nodes/node3")
	c.ctl(t, "put", "/weft/nodes/node3", strings.Replace(strings.TrimSpace(entry), before, other, 1))

	keyOf := func(node *testnet.Node) string {
		for _, p := range report(t, node).Peers {
			if p.Name == "node3" && p.Link != nil {
				return p.Key
			}
		}
		return ""
	}
	for i, want := range []struct{ code, text, key string }{
		{"key_change_held", "which stays in use", before},
		{"key_changed", "changed from " + before[:16], other},
	} {
		node := c.Nodes()[i]
		eventually(t, node.Entry().Name+" to warn of the key", func() error {
			shown := weft(t, node, "status").stdout
			if metric(t, node, "weft_key_changes_total") != "1" || metric(t, node, fmt.Sprintf("weft_warnings{code=%q}", want.code)) != "1" ||
				!strings.Contains(shown, "\nWARNING ") || !strings.Contains(shown, want.text) {
				return fmt.Errorf("%s", shown)
			}
			if got := keyOf(node); got != want.key {
				return fmt.Errorf("it has the key %s for node3, want %s", got, want.key)
			}
			return nil
		})
		eventuallyLogs(t, node, 1, `msg="node key changed"`)
	}
	for _, node := range c.Nodes()[:2] {
		if got := weft(t, node, "confirm"); got.status != 0 || !strings.Contains(got.stdout, "1 changed key accepted: node3\n") {
			t.Errorf("exit status %d, %s%s", got.status, got.stdout, got.stderr)
		}
		if got := keyOf(node); got != other {
			t.Errorf("after a confirmation %s has the key %s for node3", node.Entry().Name, got)
		}
		if shown := weft(t, node, "status").stdout; strings.Contains(shown, "WARNING") {
			t.Errorf("what was confirmed is still a warning:\n%s", shown)
		}
	}
}
