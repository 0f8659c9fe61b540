//go:build upgrade

package main_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"weft/internal/testnet"
)

// TestUpgradeNodeByNode: the nodes of a cluster are upgraded from the version before, one by one, and
// go back, while pods of all nodes exchange packets. Pods can be added and removed at each step.
func TestUpgradeNodeByNode(t *testing.T) {
	before, after := os.Getenv("UPGRADE_FROM_BIN"), binDir
	if before == "" {
		t.Fatal("UPGRADE_FROM_BIN does not say where the programs of the version before are; run make test-upgrade")
	}
	for _, encapsulation := range []string{"sealed", "vxlan"} {
		t.Run(encapsulation, func(t *testing.T) {
			cluster := newCluster(t, testnet.ClusterOptions{Nodes: 3, Sealed: encapsulation == "sealed"})
			nodes := cluster.Nodes()
			for _, n := range nodes {
				n.Use(before)
			}
			if err := cluster.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			var pods []*testnet.Pod
			for i, n := range nodes {
				pods = append(pods, addPod(t, n, fmt.Sprintf("p%d", i+1)))
			}
			expectPings(t, pods...)
			load := startExchange(t, pods[0].Namespace, pods[2].Namespace, addrOf(t, pods[2], false))
			across := func(step string, n *testnet.Node, binDir string) {
				if err := n.Stop(t.Context()); err != nil {
					t.Fatalf("%s: %v", step, err)
				}
				n.Use(binDir)
				if err := n.Start(t.Context()); err != nil {
					t.Fatalf("%s: %v", step, err)
				}
				load.firstAfter(t, time.Now())
				extra := addPod(t, n, "extra")
				expectPings(t, append(pods, extra)...)
				transfer(t, extra.Namespace, pods[1].Namespace, addrOf(t, pods[1], true), 1<<20)
				if err := n.DeletePod(t.Context(), "extra"); err != nil {
					t.Errorf("%s: %v", step, err)
				}
			}
			for i, n := range nodes {
				across(fmt.Sprintf("upgrade of node%d", i+1), n, after)
			}
			for _, n := range nodes {
				if r := report(t, n); !r.Ready || hasWarning(r, "path_mtu") {
					t.Errorf("%s after the upgrade: ready: %v, warnings: %v", r.Node, r.Ready, r.Warnings)
				}
			}
			for i, n := range nodes {
				across(fmt.Sprintf("downgrade of node%d", i+1), n, before)
			}
			t.Logf("the longest time without an answer was %v", load.stop(t))
		})
	}
}
