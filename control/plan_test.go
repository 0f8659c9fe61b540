package control

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/peer"
)

var clusterCIDRs = prefixes("10.244.0.0/16", "fd00:244::/48")

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, t := range texts {
		all = append(all, netip.MustParseAddr(t))
	}
	return all
}

// node is the node that is written in the given line.
func node(line int, name, endpoint string, podCIDRs ...string) Node {
	n := Node{Name: name, PodCIDRs: prefixes(podCIDRs...), Origin: fmt.Sprintf("nodes.yaml:%d", line)}
	if endpoint != "" {
		n.Endpoint = netip.MustParseAddrPort(endpoint)
	}
	return n
}

// threeNodes are not sorted, have one and both families, inside and outside.
func threeNodes() State {
	node3 := node(10, "node3", "[fd00:77::3]:9338", "fd00:244:0:3::/64")
	node3.VTEPMAC = peer.MAC{0x02, 0, 0, 0, 0, 3}
	return State{Origin: "nodes.yaml", Nodes: []Node{
		node3,
		node(2, "node1", "192.168.77.1:9338", "fd00:244:0:1::/64", "10.244.1.0/24", "10.244.101.0/24"),
		node(6, "node2", "192.168.77.2:9999", "10.244.2.0/24", "fd00:244:0:2::/64"),
	}}
}

func TestPlanOfADualStackNode(t *testing.T) {
	p, err := NewPlan(threeNodes(), Options{Node: "node1", ClusterCIDRs: clusterCIDRs})
	if err != nil {
		t.Fatal(err)
	}
	want := &Plan{
		Self: &peer.Peer{
			Name: "node1", Endpoint: netip.MustParseAddrPort("192.168.77.1:9338"), VTEPMAC: peer.DeriveMAC("node1"),
			Prefixes: prefixes("fd00:244:0:1::/64", "10.244.1.0/24", "10.244.101.0/24", "192.168.77.1/32"),
		},
		Peers: []*peer.Peer{{
			Name: "node2", Endpoint: netip.MustParseAddrPort("192.168.77.2:9999"), VTEPMAC: peer.DeriveMAC("node2"),
			Prefixes: prefixes("10.244.2.0/24", "fd00:244:0:2::/64", "192.168.77.2/32"),
		}, {
			Name: "node3", Endpoint: netip.MustParseAddrPort("[fd00:77::3]:9338"), VTEPMAC: peer.MAC{0x02, 0, 0, 0, 0, 3},
			Kernel: true, Prefixes: prefixes("fd00:244:0:3::/64", "fd00:77::3/128"),
		}},
		NodeAddresses: addrs("fd00:244:0:1::1", "10.244.1.1"),
		PodCIDRs:      prefixes("fd00:244:0:1::/64", "10.244.1.0/24", "10.244.101.0/24"),
		ClusterCIDRs:  clusterCIDRs,
		PeerCIDRs:     prefixes("10.244.2.0/24", "fd00:244:0:2::/64", "fd00:244:0:3::/64"),
		PeerAddresses: addrs("192.168.77.2", "fd00:77::3"),
		PeerEndpoints: []netip.AddrPort{netip.MustParseAddrPort("192.168.77.2:9338"), netip.MustParseAddrPort("[fd00:77::3]:9338")},
		EndpointIPv6:  true,
	}
	if !p.Equal(want) {
		t.Errorf("plan (-want +got):\n%s", diff(want, p))
	}
	for addr, owner := range map[string]string{
		"10.244.1.9": "node1", "10.244.2.9": "node2", "fd00:244:0:3::9": "node3",
		"192.168.77.1": "node1", "192.168.77.2": "node2", "fd00:77::3": "node3",
		"10.244.3.1": "", "192.168.77.3": "", "8.8.8.8": "",
	} {
		got := ""
		if peer, ok := p.Table.Lookup(netip.MustParseAddr(addr)); ok {
			got = peer.Name
		}
		if got != owner {
			t.Errorf("%s belongs to %q; want %q", addr, got, owner)
		}
	}
}

// diff compares what Plan.Equal compares.
func diff(want, got *Plan) string {
	shown := func(p *Plan) any {
		peers := []string{fmt.Sprint(*p.Self)}
		for _, peer := range p.Peers {
			peers = append(peers, fmt.Sprint(*peer))
		}
		return []any{peers, fmt.Sprint(p.NodeAddresses), fmt.Sprint(p.PodCIDRs), fmt.Sprint(p.ClusterCIDRs),
			fmt.Sprint(p.PeerCIDRs), fmt.Sprint(p.PeerAddresses), p.EndpointIPv6}
	}
	return cmp.Diff(shown(want), shown(got))
}

func TestEndpointsOfOneFamilyNeedNoIPv6Header(t *testing.T) {
	state := threeNodes()
	state.Nodes = state.Nodes[1:]
	p, err := NewPlan(state, Options{Node: "node1", ClusterCIDRs: clusterCIDRs})
	if err != nil || p.EndpointIPv6 {
		t.Errorf("%v, %v", p, err)
	}
}

func TestNodeAloneHasAPlan(t *testing.T) {
	p, err := NewPlan(State{Nodes: []Node{node(1, "node1", "192.168.77.1:9338", "10.244.1.0/30")}}, Options{Node: "node1", ClusterCIDRs: clusterCIDRs})
	if err != nil || len(p.Peers) != 0 || p.NodeAddresses[0] != netip.MustParseAddr("10.244.1.1") {
		t.Errorf("%v, %v", p, err)
	}
}

func TestOrderOfTheNodesDoesNotMatter(t *testing.T) {
	opts := Options{Node: "node2", ClusterCIDRs: clusterCIDRs}
	first, err := NewPlan(threeNodes(), opts)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		state := threeNodes()
		random.Shuffle(len(state.Nodes), func(i, j int) { state.Nodes[i], state.Nodes[j] = state.Nodes[j], state.Nodes[i] })
		p, err := NewPlan(state, opts)
		if err != nil || !p.Equal(first) {
			t.Fatalf("%v\n%s", err, diff(first, p))
		}
	}
}

func TestPlanDoesNotShareMemoryWithItsState(t *testing.T) {
	state, opts := threeNodes(), Options{Node: "node1", ClusterCIDRs: slices.Clone(clusterCIDRs)}
	before, err := NewPlan(state, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range state.Nodes {
		clear(n.PodCIDRs)
	}
	clear(opts.ClusterCIDRs)
	after, err := NewPlan(threeNodes(), Options{Node: "node1", ClusterCIDRs: clusterCIDRs})
	if err != nil || !before.Equal(after) {
		t.Errorf("%v\n%s", err, diff(after, before))
	}
}

func TestPlansDifferByWhatTheyAskFor(t *testing.T) {
	opts := Options{Node: "node1", ClusterCIDRs: clusterCIDRs}
	plan := func(opts Options, change func(nodes []Node) []Node) *Plan {
		state := threeNodes()
		state.Nodes = change(state.Nodes)
		p, err := NewPlan(state, opts)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	same := plan(opts, func(nodes []Node) []Node { return nodes })
	for name, changed := range map[string]*Plan{
		"a node less":                 plan(opts, func(nodes []Node) []Node { return nodes[1:] }),
		"a peer's name":               plan(opts, func(nodes []Node) []Node { nodes[2].Name = "node4"; return nodes }),
		"a peer's port":               plan(opts, func(nodes []Node) []Node { nodes[2].Endpoint = netip.MustParseAddrPort("192.168.77.2:1"); return nodes }),
		"a peer's VTEP MAC":           plan(opts, func(nodes []Node) []Node { nodes[2].VTEPMAC = peer.MAC{2, 9}; return nodes }),
		"a peer that is a kernel now": plan(opts, func(nodes []Node) []Node { nodes[2].VTEPMAC = peer.DeriveMAC(nodes[2].Name); return nodes }),
		"a peer's key":                plan(opts, func(nodes []Node) []Node { nodes[2].Key = peer.Fingerprint{9}; return nodes }),
		"this node's key":             plan(opts, func(nodes []Node) []Node { nodes[1].Key = peer.Fingerprint{9}; return nodes }),
		"a peer's pod CIDR":           plan(opts, func(nodes []Node) []Node { nodes[2].PodCIDRs = prefixes("10.244.9.0/24"); return nodes }),
		"the cluster's CIDR":          plan(Options{Node: "node1", ClusterCIDRs: append(prefixes("10.99.0.0/16"), clusterCIDRs...)}, func(nodes []Node) []Node { return nodes }),
		"this node":                   plan(Options{Node: "node2", ClusterCIDRs: clusterCIDRs}, func(nodes []Node) []Node { return nodes }),
	} {
		if changed.Equal(same) || same.Equal(changed) {
			t.Errorf("%s changed, but the plans are equal", name)
		}
	}
}

// keyedNodes are three, of which node1 has key 1, and so on.
func keyedNodes() State {
	state := State{Origin: "nodes.yaml"}
	for i := range byte(3) {
		n := node(int(i)+2, fmt.Sprintf("node%d", i+1), fmt.Sprintf("192.168.77.%d:%d", i+1, 9338+int(i)), fmt.Sprintf("10.244.%d.0/24", i+1))
		n.Key = peer.Fingerprint{i + 1}
		state.Nodes = append(state.Nodes, n)
	}
	return state
}

func keyedPlan(t *testing.T) *Plan {
	t.Helper()
	p, err := NewPlan(keyedNodes(), Options{Node: "node1", ClusterCIDRs: clusterCIDRs, Key: peer.Fingerprint{1}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestAPeerThatHasMovedKeepsItsPortAndItsPods, but not the address that it is not at: with the
// move, the peer would get what pods send to an address that is another host's. Pods send
// nothing there past the overlay either (PeerAddresses), and the peer may come back (Senders).
func TestAPeerThatHasMovedKeepsItsPortAndItsPods(t *testing.T) {
	before := keyedPlan(t)
	moved, err := before.WithEndpoint(peer.Fingerprint{3}, netip.MustParseAddr("172.16.0.3"))
	if err != nil {
		t.Fatal(err)
	}
	if !before.Equal(keyedPlan(t)) {
		t.Error("the plan that was there has changed")
	}
	if moved.Equal(before) {
		t.Error("the plans are equal")
	}
	want := keyedPlan(t)
	want.Peers[1].Endpoint = netip.MustParseAddrPort("172.16.0.3:9340")
	want.Peers[1].Listed = netip.MustParseAddrPort("192.168.77.3:9340")
	want.Peers[1].Prefixes = want.Peers[1].Prefixes[:1]
	if senders := []netip.Addr{netip.MustParseAddr("172.16.0.3"), netip.MustParseAddr("192.168.77.2"), netip.MustParseAddr("192.168.77.3")}; !slices.Equal(moved.Senders, senders) {
		t.Errorf("datagrams come from %s; want %s", moved.Senders, senders)
	}
	if !moved.Equal(want) {
		t.Errorf("plan (-want +got):\n%s", diff(want, moved))
	}
	for addr, owner := range map[string]string{"10.244.3.9": "node3", "192.168.77.3": "", "172.16.0.3": "", "10.244.2.9": "node2"} {
		got := ""
		if peer, ok := moved.Table.Lookup(netip.MustParseAddr(addr)); ok {
			got = peer.Name
		}
		if got != owner {
			t.Errorf("%s belongs to %q; want %q", addr, got, owner)
		}
	}
	if peer, ok := moved.Table.Sender(netip.MustParseAddr("172.16.0.3")); !ok || peer != moved.Peers[1] {
		t.Errorf("from the new address sends %v", peer)
	}
	if peer, ok := moved.Table.Sender(netip.MustParseAddr("192.168.77.3")); ok {
		t.Errorf("from the old address sends %v", peer)
	}
	if peer := moved.Table.ByKey(peer.Fingerprint{3}); peer != moved.Peers[1] {
		t.Errorf("the key is that of %v", peer)
	}
}

func TestPeerThatRoamsToIPv6NeedsRoom(t *testing.T) {
	p, err := keyedPlan(t).WithEndpoint(peer.Fingerprint{2}, netip.MustParseAddr("fd00:77::2"))
	if err != nil || !p.EndpointIPv6 {
		t.Errorf("%v, %v", p, err)
	}
}

func TestNoPeerRoamsToAnothersAddress(t *testing.T) {
	for _, taken := range []string{"192.168.77.1", "192.168.77.2"} {
		if _, err := keyedPlan(t).WithEndpoint(peer.Fingerprint{3}, netip.MustParseAddr(taken)); err == nil || !strings.Contains(err.Error(), taken) {
			t.Errorf("to %s: %v", taken, err)
		}
	}
}

func TestUnknownKeyRoamsNowhere(t *testing.T) {
	for _, key := range []peer.Fingerprint{{1}, {4}} { // this node's own, and an unknown one
		p, err := keyedPlan(t).WithEndpoint(key, netip.MustParseAddr("fd00:77::9"))
		if err != nil || !p.Equal(keyedPlan(t)) {
			t.Errorf("%v\n%s", err, diff(keyedPlan(t), p))
		}
	}
}

// fullCluster is as large as Kubernetes gets: 5,000 nodes, dual stack.
func fullCluster() (State, Options) {
	var state State
	for i := range 5000 {
		hi, lo := byte(i>>8), byte(i)
		state.Nodes = append(state.Nodes, Node{
			Name:     fmt.Sprintf("node%d", i),
			Endpoint: netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 16, hi, lo}), 9338),
			PodCIDRs: []netip.Prefix{
				netip.PrefixFrom(netip.AddrFrom4([4]byte{10, hi, lo, 0}), 24),
				netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0, 0, 0, 0, hi, lo}), 64),
			},
		})
	}
	return state, Options{Node: "node77", ClusterCIDRs: prefixes("10.0.0.0/8", "fd00::/48")}
}

func BenchmarkNewPlan5000Nodes(b *testing.B) {
	state, opts := fullCluster()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewPlan(state, opts); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOverlaps5000Nodes(b *testing.B) {
	state, opts := fullCluster()
	// Everybody also claims the whole cluster: the worst there is to tell.
	for i := range state.Nodes {
		state.Nodes[i].PodCIDRs = append(state.Nodes[i].PodCIDRs, opts.ClusterCIDRs[0])
	}
	for b.Loop() {
		if _, err := NewPlan(state, opts); err == nil {
			b.Fatal("accepted")
		}
	}
}

// Behind a peer are those of its further addresses that it has proven; behind this node, its
// own. What the list has as an endpoint is that node's alone.
func TestProvenAddressesAreBehindTheirNodes(t *testing.T) {
	plan := func() *Plan {
		node1 := withAddresses(withKey(node(1, "node1", "192.168.77.1:9338", "10.244.1.0/24"), 1), "192.168.78.1", "192.168.77.2", "fd00:77::1")
		node2 := withAddresses(withKey(node(2, "node2", "192.168.77.2:9340", "10.244.2.0/24"), 2), "192.168.78.2", "192.168.78.9", "192.168.77.3", "192.168.78.1", "192.168.77.2", "192.168.78.2")
		node3 := withAddresses(withKey(node(3, "node3", "192.168.77.3:9338", "10.244.3.0/24"), 3), "192.168.78.9", "fd00:77::3")
		p, err := NewPlan(State{Nodes: []Node{node1, node2, node3}}, Options{Node: "node1", ClusterCIDRs: clusterCIDRs})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	before := plan()
	proven := map[netip.Addr]peer.Fingerprint{}
	for _, a := range append(slices.Clone(before.Peers[0].Claimed), addrs("192.168.99.2")...) {
		proven[a] = peer.Fingerprint{2}
	}
	for _, a := range addrs("192.168.78.9", "fd00:77::3") {
		proven[a] = peer.Fingerprint{3}
	}
	with, err := before.WithAddresses(proven)
	if err != nil {
		t.Fatal(err)
	}
	if !before.Equal(plan()) {
		t.Error("the plan that was there has changed")
	}
	if with.Equal(before) {
		t.Error("the plans are equal")
	}
	for addr, owner := range map[string]string{
		"192.168.77.1": "node1", "192.168.78.1": "node1", "fd00:77::1": "node1",
		"192.168.77.2": "node2", "192.168.78.2": "node2",
		"192.168.77.3": "node3", "192.168.78.9": "node3", "fd00:77::3": "node3",
		"192.168.99.2": "", "10.244.2.9": "node2",
	} {
		got := ""
		if peer, ok := with.Table.Lookup(netip.MustParseAddr(addr)); ok {
			got = peer.Name
		}
		if got != owner {
			t.Errorf("%s belongs to %q; want %q", addr, got, owner)
		}
	}
	if want := addrs("192.168.77.2", "192.168.77.3", "192.168.78.2", "192.168.78.9", "fd00:77::3"); !slices.Equal(with.PeerAddresses, want) {
		t.Errorf("pods reach %v through the overlay; want %v", with.PeerAddresses, want)
	}
	if !slices.Equal(with.Senders, with.PeerAddresses) || slices.Equal(with.Senders, before.Senders) {
		t.Errorf("datagrams come from %v; want %v", with.Senders, with.PeerAddresses)
	}
	if at := netip.MustParseAddrPort("192.168.78.2:9340"); !slices.Contains(with.PeerEndpoints, at) || slices.Contains(before.PeerEndpoints, at) {
		t.Errorf("only weftd may send to %v; before to %v", with.PeerEndpoints, before.PeerEndpoints)
	}
	if same, err := before.WithAddresses(nil); err != nil || same != before {
		t.Errorf("with nothing proven: %v, %v", same, err)
	}
}

// TestRoamingPeersKeepWhatTheyProve: wherever peers roam, and whatever they have proven there or
// elsewhere, this node has a plan with all that is proven, and each address is one node's at most.
func TestRoamingPeersKeepWhatTheyProve(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("192.168.77.1"), netip.MustParseAddr("192.168.77.2"), netip.MustParseAddr("192.168.77.3"), netip.MustParseAddr("192.168.78.4"), netip.MustParseAddr("fd00:77::5")}
	node := func(i int) Node {
		return Node{Name: fmt.Sprintf("node%d", i), Endpoint: netip.AddrPortFrom(addrs[i-1], 9338), Key: peer.Fingerprint{byte(i)},
			PodCIDRs: prefixes(fmt.Sprintf("10.244.%d.0/24", i)), Addresses: addrs}
	}
	state, opts := State{Nodes: []Node{node(1), node(2), node(3)}}, Options{Node: "node1", ClusterCIDRs: prefixes("10.244.0.0/16")}
	state.Nodes[0].Addresses = addrs[3:4]
	for sample := range 5 * 5 * 2 * 4 * 4 * 4 * 4 * 4 / 13 {
		choice := 13 * sample
		choose := func(n int) (c int) { c, choice = choice%n, choice/n; return c }
		plan, err := NewPlan(state, opts)
		if err != nil {
			t.Fatal(err)
		}
		to := map[byte]netip.Addr{2: addrs[choose(5)], 3: addrs[choose(5)]}
		first := byte(2 + choose(2))
		for _, key := range []byte{first, 5 - first} {
			if moved, err := plan.WithEndpoint(peer.Fingerprint{key}, to[key]); err == nil {
				plan = moved
			}
		}
		proven := map[netip.Addr]peer.Fingerprint{}
		for _, a := range addrs {
			proven[a] = peer.Fingerprint{byte(choose(4))}
		}
		with, err := plan.WithAddresses(proven)
		if err != nil {
			t.Fatalf("peers at %v, proven %v: %v", to, proven, err)
		}
		if key := proven[addrs[4]]; key[0] >= 2 {
			if owner, ok := with.Table.Lookup(addrs[4]); !ok || owner.Key != key {
				t.Errorf("peers at %v, proven %v: %s is behind %v", to, proven, addrs[4], owner)
			}
		}
		if owner, ok := with.Table.Lookup(addrs[3]); !ok || owner != with.Self {
			t.Errorf("peers at %v, proven %v: this node's %s is behind %v", to, proven, addrs[3], owner)
		}
	}
}
