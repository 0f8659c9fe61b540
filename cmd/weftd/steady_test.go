package main_test

import (
	"net/netip"
	"sync/atomic"
	"testing"

	"weft/internal/testnet"
)

// Super-packets hide what a packet costs: these pass one by one, or in short runs.
func TestSmallDatagramsAllocateNothing(t *testing.T) {
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2})
	pod1, pod2 := addPod(t, cluster.Nodes()[0], "a"), addPod(t, cluster.Nodes()[1], "b")
	to := netip.AddrPortFrom(addrOf(t, pod2, false), 5000)
	receiver := socketAt(t, pod2.Namespace, int(to.Port()))
	var arrived atomic.Int64
	go func() {
		for buf := make([]byte, 100); ; arrived.Add(1) {
			if _, err := receiver.Read(buf); err != nil {
				return
			}
		}
	}()
	sender, payload := socketAt(t, pod1.Namespace, 4000), make([]byte, 64)
	load := func(packets int64) {
		// More are sent than must arrive: on a busy machine, a queue runs over now and then.
		for enough := arrived.Load() + packets; arrived.Load() < enough; {
			if _, err := sender.WriteToUDPAddrPort(payload, to); err != nil {
				t.Fatal(err)
			}
		}
	}
	load(50_000) // whatever is allocated once
	const packets = 200_000
	expectFewObjects(t, cluster, packets/10, func() { load(packets) })
}

// expectFewObjects fails if a node allocates more than most objects while f runs.
func expectFewObjects(t *testing.T, cluster *testnet.Cluster, most float64, f func()) {
	t.Helper()
	// The two readings make 2,000 each, and the runtime counts what it had given out to
	// its processors before only when they ask for more: some thousands.
	mallocs := func(node *testnet.Node) float64 { return number(t, metric(t, node, "go_memstats_mallocs_total")) }
	var before []float64
	for _, node := range cluster.Nodes() {
		before = append(before, mallocs(node))
	}
	f()
	for i, node := range cluster.Nodes() {
		allocated := mallocs(node) - before[i]
		t.Logf("%s: %.0f objects", node.Entry().Name, allocated)
		if allocated > most {
			t.Errorf("%s made %.0f objects, want at most %.0f", node.Entry().Name, allocated, most)
		}
	}
}
