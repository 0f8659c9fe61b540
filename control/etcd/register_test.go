package etcd

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"weft/internal/testnet"
)

func TestANodeRegistersAndKeepsItsPodCIDRs(t *testing.T) {
	t.Parallel()
	r := newRig(t, testnet.EtcdOptions{Members: 1})
	dual := func(o *Options) {
		o.ClusterCIDRs = prefixes("10.244.0.0/16", "fd00:244::/48")
		o.MaskIPv4, o.MaskIPv6 = 26, 112
	}
	node1 := follow(t, r.source(t, "node1", dual))
	first := node1.expectNodes(t, 0, "node1")
	own := nodeOf(t, first, "node1")
	if len(own.PodCIDRs) != 2 || own.PodCIDRs[0].Bits() != 26 || own.PodCIDRs[1].Bits() != 112 {
		t.Errorf("pod CIDRs %v", own.PodCIDRs)
	}
	if self := selfOf("node1"); own.Endpoint != self.Endpoint || own.Key != self.Key || own.Origin != "etcd /weft/nodes/node1" {
		t.Errorf("%+v", own)
	}
	if first.Origin != "etcd /weft" || !first.Registered {
		t.Errorf("origin %q, registered %v", first.Origin, first.Registered)
	}
	expectPlan(t, first, "node1", "10.244.0.0/16", "fd00:244::/48")

	node2 := follow(t, r.source(t, "node2", dual, func(o *Options) { o.MaskIPv4, o.MaskIPv6 = 20, 64 }))
	node2.expectNodes(t, 0, "node1", "node2")
	both := node1.expectNodes(t, 0, "node1", "node2")
	expectPlan(t, both, "node2", "10.244.0.0/16", "fd00:244::/48")

	node1.stop()
	again := follow(t, r.source(t, "node1", dual, func(o *Options) { o.MaskIPv4 = 24 }))
	if got := nodeOf(t, again.expectNodes(t, 0, "node1", "node2"), "node1"); fmt.Sprint(got) != fmt.Sprint(own) {
		t.Errorf("after a restart: %v, before: %v", got, own)
	}
}

func TestManyNodesAtOnceGetOneCIDREach(t *testing.T) {
	r := newRig(t, testnet.EtcdOptions{Members: 3})
	nodes := testnet.Sampled(30, 200)
	var followers []*following
	started := time.Now()
	for i := range nodes {
		followers = append(followers, follow(t, r.source(t, fmt.Sprintf("node%d", i))))
	}
	var mu sync.Mutex
	owners := make(map[netip.Prefix]string)
	var slowest time.Duration
	for _, f := range followers {
		e := f.expect(t, 0, "a State", func(e emitted) bool { return e.err == nil })
		own := nodeOf(t, e.state, f.name).PodCIDRs[0]
		mu.Lock()
		if other, taken := owners[own]; taken {
			t.Errorf("%s and %s have %s", f.name, other, own)
		}
		owners[own] = f.name
		mu.Unlock()
		slowest = max(slowest, e.at.Sub(started))
	}
	t.Logf("the last of %d nodes was registered after %v", nodes, slowest.Round(time.Millisecond))
	for _, f := range followers {
		all := f.expect(t, 0, "a State with all", func(e emitted) bool { return e.err == nil && len(e.state.Nodes) == nodes })
		if f == followers[0] {
			expectPlan(t, all.state, f.name, "10.244.0.0/16")
			t.Logf("and known to %s after %v", f.name, all.at.Sub(started).Round(time.Millisecond))
		}
	}
}
