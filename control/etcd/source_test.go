package etcd

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/control"
	"weft/internal/testnet"
)

// These tests share one etcd; each has a prefix of its own.
func TestSourceBesideARealEtcd(t *testing.T) {
	t.Parallel()
	r := newRig(t, testnet.EtcdOptions{Members: 1})
	at := func(prefix string) func(*Options) { return func(o *Options) { o.Prefix = prefix } }

	t.Run("a removed node comes back with the same CIDR while its weftd runs", func(t *testing.T) {
		t.Parallel()
		s := r.source(t, "node1", at("/removed"))
		node1 := follow(t, s)
		own := nodeOf(t, node1.expectNodes(t, 0, "node1"), "node1").PodCIDRs[0]
		node2 := follow(t, r.source(t, "node2", at("/removed")))
		node2.expectNodes(t, 0, "node1", "node2")
		if err := s.Remove(within(t), "node1"); err != nil {
			t.Fatal(err)
		}
		after := node2.expectNodes(t, 0, "node2", "node1") // it is the youngest now
		if got := nodeOf(t, after, "node1").PodCIDRs[0]; got != own {
			t.Errorf("it has %s now, not %s", got, own)
		}
		emits, _ := node1.since(0)
		for _, e := range emits {
			if e.err == nil {
				nodeOf(t, e.state, "node1") // at no time it was missing
			}
		}
		node1.stop()
		if err := s.Remove(within(t), "node1"); err != nil {
			t.Fatal(err)
		}
		node2.expect(t, 0, "a State with node2 alone", func(e emitted) bool {
			return e.err == nil && fmt.Sprint(namesOf(e.state)) == "[node2]"
		})
		for name, want := range map[string]string{"node1": "there is no such node in etcd under /removed", "../x": "not a valid node name"} {
			if err := s.Remove(within(t), name); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("remove %s: %v", name, err)
			}
		}
		if state, err := s.Load(within(t)); err != nil || fmt.Sprint(namesOf(state)) != "[node2]" {
			t.Errorf("%v, %v", namesOf(state), err)
		}
	})

	t.Run("when all CIDRs are claimed, a node waits for one", func(t *testing.T) {
		t.Parallel()
		small := func(o *Options) { o.Prefix, o.ClusterCIDRs = "/small", prefixes("10.244.0.0/23") }
		node1 := follow(t, r.source(t, "node1", small))
		node1.expectNodes(t, 0, "node1")
		node2 := follow(t, r.source(t, "node2", small))
		node2.expectNodes(t, 0, "node1", "node2")
		node3 := follow(t, r.source(t, "node3", small))
		node3.expectError(t, 0, "no pod CIDR of length /24 is free in 10.244.0.0/23: 2 are claimed; remove nodes that are gone (weft node list, weft node remove NAME), or widen clusterCIDRs")
		node1.stop()
		began := time.Now()
		if err := node2.source.Remove(within(t), "node1"); err != nil {
			t.Fatal(err)
		}
		node3.expectNodes(t, 0, "node2", "node3")
		t.Logf("it got one after %v", time.Since(began))
	})

	t.Run("of two nodes with one CIDR the first one has it", func(t *testing.T) {
		t.Parallel()
		node1 := follow(t, r.source(t, "node1", at("/two")))
		own := nodeOf(t, node1.expectNodes(t, 0, "node1"), "node1").PodCIDRs[0]
		cluster := func() *control.Plan {
			plan, err := control.NewPlan(node1.last(t), control.Options{Node: "node1", ClusterCIDRs: prefixes("10.244.0.0/16")})
			if err != nil {
				t.Fatal(err)
			}
			return plan
		}
		// An entry alone, then with a claim, and then with a claim that was changed.
		n := node1.count()
		r.ctl(t, "put", "/two/nodes/thief", entryOf("thief", own.String()))
		node1.expectNodes(t, n, "node1")
		if plan := cluster(); plan.Refused == nil || !strings.Contains(plan.Refused.Error(), "is not claimed: there is no key") {
			t.Errorf("refused: %v", plan.Refused)
		}
		r.ctl(t, "put", "/two/podcidrs/v4/thief", own.String())
		node1.expectRefusal(t, n, "thief: its pod CIDR "+own.String()+" overlaps "+own.String()+", which node node1 claimed first")
		if plan := cluster(); len(plan.Peers) != 0 || plan.Refused == nil {
			t.Errorf("peers %v, refused: %v", plan.Peers, plan.Refused)
		}
		// The thief's own weftd finds that it has lost, and takes another.
		thief := follow(t, r.source(t, "thief", at("/two")))
		thief.expectError(t, 0, "overlaps an earlier claim of node1")
		thief.expectNodes(t, 0, "node1", "thief")
		expectPlan(t, thief.last(t), "thief", "10.244.0.0/16")
	})

	t.Run("an older node can't change its claim to a younger one's", func(t *testing.T) {
		t.Parallel()
		old := follow(t, r.source(t, "old", at("/change")))
		old.expectNodes(t, 0, "old")
		old.stop()
		young := follow(t, r.source(t, "young", at("/change")))
		own := nodeOf(t, young.expectNodes(t, 0, "old", "young"), "young").PodCIDRs[0]
		r.ctl(t, "put", "/change/nodes/old", entryOf("old", own.String()))
		r.ctl(t, "put", "/change/podcidrs/v4/old", own.String())
		young.expectRefusal(t, 0, "which node young claimed first")
		expectOnlySelf(t, young.last(t), "young")
	})

	t.Run("own keys that somebody changes are put right", func(t *testing.T) {
		t.Parallel()
		node1 := follow(t, r.source(t, "node1", at("/own")))
		own := nodeOf(t, node1.expectNodes(t, 0, "node1"), "node1")
		for _, change := range [][]string{
			{"put", "/own/nodes/node1", "rubbish"},
			{"put", "/own/nodes/node1", entryOf("node1", "10.244.0.0/16")},
			{"del", "/own/nodes/node1"},
			{"del", "/own/podcidrs/v4/node1"},
			{"put", "/own/podcidrs/v4/node1", "rubbish"},
			{"del", "--prefix", "/own/"},
		} {
			r.ctl(t, change...)
			err := testnet.Wait(within(t), "the keys to be right", r.expectKeys(map[string]string{
				"/own/nodes/node1": entryOf("node1", own.PodCIDRs[0].String()), "/own/podcidrs/v4/node1": own.PodCIDRs[0].String(),
			}))
			if err != nil {
				t.Errorf("after %v: %v", change, err)
			}
		}
		emits, _ := node1.since(0)
		for _, e := range emits {
			if e.err != nil || fmt.Sprint(e.state.Nodes) != fmt.Sprint([]control.Node{own}) {
				t.Errorf("emitted: %s", tellAll([]emitted{e}))
			}
		}
	})

	t.Run("a node that says something else is registered so", func(t *testing.T) {
		t.Parallel()
		s := r.source(t, "node1", at("/else"))
		node1 := runOnly(t, s)
		time.Sleep(300 * time.Millisecond)
		if n := node1.count(); n != 0 {
			t.Errorf("%d emits of a node that was not registered", n)
		}
		s.Register(selfOf("node1"))
		node1.expectNodes(t, 0, "node1")
		n := node1.count()
		moved := selfOf("node1")
		moved.Endpoint = netip.MustParseAddrPort("[fd00:77::1]:9338")
		s.Register(moved)
		node1.expect(t, n, "a State with the new endpoint", func(e emitted) bool {
			return e.err == nil && e.state.Nodes[0].Endpoint == moved.Endpoint
		})
		node1.stop()
		// Another weftd, before Register: what is there is emitted, and nothing written.
		reader := runOnly(t, r.source(t, "node1", at("/else")))
		reader.expectNodes(t, 0, "node1")
	})

	t.Run("two machines with one name write its entry seldom, and say so", func(t *testing.T) {
		t.Parallel()
		var mu sync.Mutex
		var writes []string
		watch := r.client(t).Watch(t.Context(), "/twins/nodes/node1")
		go func() {
			for answer := range watch {
				mu.Lock()
				for _, e := range answer.Events {
					writes = append(writes, string(e.Kv.Value))
				}
				mu.Unlock()
			}
		}()
		var twins []*following
		for _, name := range []string{"node1", "twin"} {
			s := r.source(t, "node1", at("/twins"))
			s.Register(selfOf(name))
			twins = append(twins, runOnly(t, s))
		}
		began := time.Now()
		for i, other := range []string{"twin", "node1"} {
			twins[i].expectError(t, 0, fmt.Sprintf("another machine writes the entry of this node's name, node1: others reach it at %q; name one of the two differently", selfOf(other).Endpoint))
		}
		time.Sleep(time.Until(began.Add(6 * time.Second)))
		mu.Lock()
		if n := len(writes); n < 4 || n > 12 {
			t.Errorf("%d writes in 6 s", n)
		}
		mu.Unlock()
		for i, f := range twins {
			emits, _ := f.since(0)
			told := 0
			for _, e := range emits {
				if e.err != nil {
					told++
				} else if got := nodeOf(t, e.state, "node1").Endpoint; got != selfOf([]string{"node1", "twin"}[i]).Endpoint {
					t.Errorf("it is at %s in a State of its own", got)
				}
			}
			if told != 1 {
				t.Errorf("told %d times: %s", told, tellAll(emits))
			}
		}
		for port := uint16(1001); port <= 1003; port++ { // what is new is written at once
			moved := selfOf("node1")
			moved.Endpoint = netip.AddrPortFrom(moved.Endpoint.Addr(), port)
			twins[0].source.Register(moved)
			time.Sleep(400 * time.Millisecond)
			mu.Lock()
			if !strings.Contains(fmt.Sprint(writes), moved.Endpoint.String()) {
				t.Errorf("%s is not written", moved.Endpoint)
			}
			mu.Unlock()
		}
	})

	t.Run("reload lists again and emits even the same", func(t *testing.T) {
		t.Parallel()
		node1 := follow(t, r.source(t, "node1", at("/reload")))
		node1.expectNodes(t, 0, "node1")
		time.Sleep(300 * time.Millisecond)
		n := node1.count()
		node1.reload <- struct{}{}
		node1.expectNodes(t, n, "node1")
		close(node1.reload)
		node2 := follow(t, r.source(t, "node2", at("/reload")))
		node2.expectNodes(t, 0, "node1", "node2")
		node1.expectNodes(t, n, "node1", "node2")
	})

	t.Run("other cluster CIDRs are not followed in silence", func(t *testing.T) {
		t.Parallel()
		node1 := follow(t, r.source(t, "node1", at("/moved")))
		node1.expectNodes(t, 0, "node1")
		node1.stop()
		s := r.source(t, "node1", at("/moved"), func(o *Options) { o.ClusterCIDRs = prefixes("10.245.0.0/16") })
		again := follow(t, s)
		again.expectError(t, 0, "which is in none of the cluster CIDRs any more; stop weftd, remove the node (weft node remove node1)")
		again.stop()
		if err := s.Remove(within(t), "node1"); err != nil {
			t.Fatal(err)
		}
		fresh := follow(t, r.source(t, "node1", at("/moved"), func(o *Options) { o.ClusterCIDRs = prefixes("10.245.0.0/16") }))
		expectPlan(t, fresh.expectNodes(t, 0, "node1"), "node1", "10.245.0.0/16")
	})

	t.Run("a family that is added is claimed too", func(t *testing.T) {
		t.Parallel()
		node1 := follow(t, r.source(t, "node1", at("/dual")))
		own := nodeOf(t, node1.expectNodes(t, 0, "node1"), "node1").PodCIDRs
		node1.stop()
		again := follow(t, r.source(t, "node1", at("/dual"), func(o *Options) { o.ClusterCIDRs = append(o.ClusterCIDRs, prefixes("fd00::/48")...) }))
		if got := nodeOf(t, again.expectNodes(t, 0, "node1"), "node1").PodCIDRs; len(got) != 2 || got[0] != own[0] {
			t.Errorf("%v before, %v after", own, got)
		}
	})
}

// TestFilesOfEtcdAreReadAtTheStart: what is wrong in them is reported with the remedy. All else in
// the options internal/config has checked.
func TestFilesOfEtcdAreReadAtTheStart(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk.pem")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no CA":     {func(o *Options) { o.CAFile = filepath.Join(dir, "none") }, "none: no such file or directory; write it"},
		"junk CA":   {func(o *Options) { o.CAFile = junk }, junk + ": there is no certificate in it"},
		"junk pair": {func(o *Options) { o.CertFile, o.KeyFile = junk, junk }, junk + ": tls: failed to find any PEM data"},
	} {
		o := Options{Endpoints: []string{"https://192.168.77.101:2379"}, Prefix: "/weft", Node: "node1", ClusterCIDRs: prefixes("10.244.0.0/16"), MaskIPv4: 24}
		if _, err := New(o); err != nil {
			t.Fatal(err)
		}
		tt.change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %s", name, err, tt.want)
		}
	}
}
