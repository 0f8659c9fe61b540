package etcd

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/control"
	"weft/internal/testnet"
)

// move has a node say that it is at another port, and returns how long it took until all
// know.
func move(t *testing.T, mover *following, port uint16, all []*following) time.Duration {
	t.Helper()
	self := selfOf(mover.name)
	self.Endpoint = netip.AddrPortFrom(self.Endpoint.Addr(), port)
	began := time.Now()
	mover.source.Register(self)
	var slowest time.Duration
	for _, f := range all {
		f.expect(t, 0, fmt.Sprintf("a State with %s at port %d", mover.name, port), func(e emitted) bool {
			if e.err != nil {
				return false
			}
			i := slices.IndexFunc(e.state.Nodes, func(n control.Node) bool { return n.Name == mover.name })
			return i >= 0 && e.state.Nodes[i].Endpoint.Port() == port
		})
		slowest = max(slowest, time.Since(began))
	}
	return slowest
}

// followMany follows with several nodes, and returns when all know all.
func followMany(t *testing.T, r *rig, count int) []*following {
	t.Helper()
	var all []*following
	for i := range count {
		all = append(all, follow(t, r.source(t, fmt.Sprintf("node%d", i+1))))
	}
	for _, f := range all {
		f.expect(t, 0, "a State with all", func(e emitted) bool { return e.err == nil && len(e.state.Nodes) == count })
	}
	return all
}

func TestSourcesOutliveTheirLeaderAndMembers(t *testing.T) {
	t.Parallel()
	r := newRig(t, testnet.EtcdOptions{Members: 3})
	all := followMany(t, r, 8) // enough for some to watch each of the members
	leader, err := r.Leader(within(t))
	if err != nil {
		t.Fatal(err)
	}

	r.Kill(leader)
	t.Logf("the leader killed: all know after %v", move(t, all[0], 1001, all))
	if err := r.Start(within(t), leader); err != nil {
		t.Fatal(err)
	}

	// To be cut off is worse than to be dead: no packet says so.
	if leader, err = r.Leader(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := r.Partition(t.Context(), leader); err != nil {
		t.Fatal(err)
	}
	t.Logf("the leader cut off: all know after %v", move(t, all[0], 1002, all))
	if err := r.Heal(within(t), leader); err != nil {
		t.Fatal(err)
	}

	for member := range 3 {
		if _, err := r.CtlAt(within(t), member+1, "defrag"); err != nil {
			t.Error(err)
		}
	}
	t.Logf("defragmented: all know after %v", move(t, all[1], 1003, all))
	for _, f := range all {
		if emits, _ := f.since(0); len(emits) > 60 {
			t.Errorf("%s emitted %d times: %s", f.name, len(emits), tellAll(emits))
		}
	}
}

func TestWhatHappenedInAnOutageIsKnownAfterwards(t *testing.T) {
	t.Parallel()
	r := newRig(t, testnet.EtcdOptions{Members: 1})
	all := followMany(t, r, 3)
	node1, node2, node3 := all[0], all[1], all[2]
	node2.stop()
	node3.stop()
	n := node1.count()
	r.link(t, "down")
	node1.expectError(t, n, "check that a majority of the members is up")
	r.ctl(t, "del", "/weft/nodes/node2")
	r.ctl(t, "del", "/weft/podcidrs/v4/node2")
	r.ctl(t, "put", "/weft/nodes/node3", "rubbish")
	if err := r.Compact(within(t)); err != nil {
		t.Fatal(err)
	}
	emits, _ := node1.since(n)
	if len(emits) > 2 || emits[0].err == nil {
		t.Errorf("without etcd: %s", tellAll(emits))
	}
	r.link(t, "up")
	began := time.Now()
	state := node1.expectNodes(t, n, "node1")
	t.Logf("back: known after %v", time.Since(began))
	if state.Refused == nil || !strings.Contains(state.Refused.Error(), "etcd /weft/nodes/node3: node3: ") {
		t.Errorf("refused: %v", state.Refused)
	}
}

func TestOutageIsReportedOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, testnet.EtcdOptions{Members: 1})
	node1 := follow(t, r.source(t, "node1"))
	node1.expectNodes(t, 0, "node1")
	reachable := func(want bool) {
		t.Helper()
		if at, got := node1.source.LastContact(); got != want || at.IsZero() {
			t.Errorf("reachable %t, last contact at %s; want %t", got, at, want)
		}
	}
	reachable(true)
	n := node1.count()
	r.Kill(1)
	began := time.Now()
	node1.expectError(t, n, "that this node reaches them at http://192.168.77.101:2379")
	t.Logf("told after %v", time.Since(began))
	reachable(false)
	time.Sleep(10*time.Second - time.Since(began))
	if emits, _ := node1.since(n); len(emits) > 2 {
		t.Errorf("in an outage of 10 s: %s", tellAll(emits))
	}
	n = node1.count()
	if err := r.Start(within(t), 1); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	node1.expectNodes(t, n, "node1")
	reachable(true)
	t.Logf("back after %v", time.Since(began))

	// An etcd that was away from the beginning.
	r.Kill(1)
	node2 := follow(t, r.source(t, "node2"))
	node2.expectError(t, 0, "connection refused")
	if err := r.Start(within(t), 1); err != nil {
		t.Fatal(err)
	}
	node2.expectNodes(t, 0, "node1", "node2")
}

func TestAFullDatabaseStopsRegistrationOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t, testnet.EtcdOptions{Members: 1, QuotaBytes: 4 << 20})
	all := followMany(t, r, 2)
	loser := follow(t, r.source(t, "loser"))
	lost := nodeOf(t, loser.expectNodes(t, 0, append(namesOf(all[0].last(t)), "loser")...), "loser").PodCIDRs
	loser.stop()
	if err := loser.source.Remove(within(t), "loser"); err != nil {
		t.Fatal(err)
	}
	r.ctl(t, "put", "/weft/podcidrs/v4/owner", lost[0].String())
	client := r.client(t)
	for i := 0; ; i++ { // until it is full
		if _, err := client.Put(t.Context(), fmt.Sprint("fill", i), strings.Repeat("x", 1<<19)); err != nil {
			break
		}
	}
	node3 := follow(t, r.source(t, "node3"))
	node3.expectError(t, 0, "etcd's database is full, and rejects writes; compact and defragment it or raise its quota, then run `etcdctl alarm disarm`")
	n := all[0].count()
	all[0].reload <- struct{}{}
	all[0].expectNodes(t, n, namesOf(all[0].last(t))...)

	// One that finds its CIDR with another node, and can't claim what is free, has none.
	s := r.source(t, "loser")
	self := selfOf("loser")
	self.Held = lost
	s.Register(self)
	loser = runOnly(t, s)
	loser.expectError(t, 0, "etcd's database is full")
	emits, _ := loser.since(0)
	if !errors.Is(emits[0].err, control.ErrNoPodCIDR) || slices.ContainsFunc(emits, func(e emitted) bool { return e.err == nil }) {
		t.Errorf("emitted: %s", tellAll(emits))
	}

	r.ctl(t, "del", "--prefix", "fill")
	if err := r.Compact(within(t)); err != nil {
		t.Fatal(err)
	}
	r.ctl(t, "defrag")
	r.ctl(t, "alarm", "disarm")
	for _, f := range []*following{node3, loser} {
		f.expect(t, 0, "a State", func(e emitted) bool { return e.err == nil && len(e.state.Nodes) == 4 })
	}
	if got := nodeOf(t, loser.last(t), "loser").PodCIDRs; got[0] == lost[0] {
		t.Errorf("the loser has %v still", got)
	}
	if emits, _ := node3.since(0); len(emits) > 6 {
		t.Errorf("emitted: %s", tellAll(emits))
	}
}
