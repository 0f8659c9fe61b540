package cniplugin

import (
	"strings"
	"testing"

	"github.com/containernetworking/plugins/pkg/ns"

	"weft/cniplugin/wiring"
	"weft/internal/nodefile"
)

// A program in another network namespace than the node's sees no veths, and frees no lease
// of a pod that is attached.
func TestLeasesAreKeptElsewhere(t *testing.T) {
	n := newNode(t, families["dual stack"]...)
	n.attachPod("pod")
	elsewhere := newNamespace(t)
	if err := elsewhere.Do(func(ns.NetNS) error { return wiring.CheckNamespace(n.runDir) }); err == nil {
		t.Error("another namespace is taken for the node's")
	}
	if err := n.Do(func(ns.NetNS) error { return wiring.CheckNamespace(n.runDir) }); err != nil {
		t.Errorf("the node's namespace: %v", err)
	}
	if err := elsewhere.Do(func(ns.NetNS) error { return wiring.CheckNamespace(t.TempDir()) }); err != nil {
		t.Errorf("without a description: %v", err)
	}
	n.describeNode(func(node *nodefile.Node) { node.Guard.Comment = "other" })
	if err := n.Do(func(ns.NetNS) error { return wiring.CheckNamespace(n.runDir) }); err == nil {
		t.Error("another table is taken for the guard")
	}

	there := &node{namespace: elsewhere, t: t, runDir: n.runDir, stateDir: n.stateDir, plugin: n.plugin}
	if got := there.reconcile(); len(got) != 1 || !strings.HasPrefix(got[0], "kept pod/eth0") {
		t.Errorf("a reconcile there: %q", got)
	}
	requireCode(t, there.call(n.plugin.GC, n.args("", "")), CodeStillRuns)
	if leases := n.leases(); len(leases) != 1 {
		t.Errorf("leases: %v", leases)
	}
	expect(t, n.reconcile())
}
