package main_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"weft/internal/testnet"
)

// TestPodsOutliveANewControlSource: nodes whose list came from a file go on with etcd, one after
// the other and without a reboot. They keep their pod CIDRs, so that their pods go on too. Only
// a node whose CIDR is another's by then gets a new one: it says so, and names the pods that are
// to be deleted.
func TestPodsOutliveANewControlSource(t *testing.T) {
	t.Parallel()
	network := testnet.ForTest(t, testnet.Options{Prefix: "weftd", BinDir: binDir})
	var etcd *testnet.Etcd
	cluster, err := network.NewCluster(t.Context(), testnet.ClusterOptions{Nodes: 2, Sealed: true, Configure: func(weft map[string]any) {
		if etcd == nil {
			return
		}
		control, err := etcd.Control(weft["node"].(string))
		if err != nil {
			t.Error(err)
		}
		weft["control"] = control
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	node, other := cluster.Nodes()[0], cluster.Nodes()[1]
	pod1, pod2 := addPod(t, node, "pod1"), addPod(t, other, "pod2")
	expectPings(t, pod1, pod2)

	moved, err := network.AddEtcd(t.Context(), cluster.Segment, testnet.EtcdOptions{Members: 1, TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	etcd = moved
	for _, n := range cluster.Nodes() {
		before := report(t, n).PodCIDRs
		if err := n.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := n.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		now := report(t, n)
		if now.State.Source != "etcd /weft" || !slices.Equal(now.PodCIDRs, before) {
			t.Errorf("the list of nodes from %s: pod CIDRs %v, before %v", now.State.Source, now.PodCIDRs, before)
		}
	}
	eventuallyPeers(t, 1, node, other)
	expectPings(t, pod1, pod2)

	// In the meantime, node3 has claimed what node1 had.
	etcd = nil
	for _, n := range cluster.Nodes() {
		if err := n.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := n.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := node.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{{"del", "--prefix", "/weft/"}, {"put", "/weft/podcidrs/v4/node3", "10.244.1.0/24"}} {
		if _, err := moved.Ctl(t.Context(), command...); err != nil {
			t.Fatal(err)
		}
	}
	etcd = moved
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "node1 to have another pod CIDR", func() error {
		now := report(t, node).PodCIDRs
		if len(now) != 2 || now[0].String() == "10.244.1.0/24" || now[1].String() != "fd00:244:1::/64" {
			return fmt.Errorf("pod CIDRs %v", now)
		}
		return nil
	})
	now := report(t, node).PodCIDRs[0].String()
	if log := logs(t, node); !strings.Contains(log, `msg="this node's pod CIDRs changed" node=node1 before="10.244.1.0/24, fd00:244:1::/64" now="`+now) {
		t.Errorf("weftd does not log the change:\n%s", log)
	}
	eventually(t, "weft status to name the stranded pod", func() error {
		shown := weft(t, node, "status").stdout
		if !strings.Contains(shown, addrOf(t, pod1, false).String()+", ") || !strings.Contains(shown, "are now "+now) || !strings.Contains(shown, "; delete the pod") {
			return errors.New(shown)
		}
		return nil
	})
}
