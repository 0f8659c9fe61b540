package main_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"weft/internal/status"
	"weft/internal/testnet"
)

// explained is what a node says of a packet, as a program asks.
func explained(t *testing.T, node *testnet.Node, args ...string) status.Explanation {
	t.Helper()
	shown := weft(t, node, append([]string{"explain", "-o", "json"}, args...)...)
	var e status.Explanation
	if err := json.Unmarshal([]byte(shown.stdout), &e); err != nil || shown.status != 0 {
		t.Fatalf("%v: weft explain %v: exit status %d, %s%s", err, args, shown.status, shown.stdout, shown.stderr)
	}
	return e
}

// TestExplainSaysWhereEachPacketGoes asks two nodes of a real cluster.
func TestExplainSaysWhereEachPacketGoes(t *testing.T) {
	t.Parallel()
	for _, sealed := range []bool{true, false} {
		t.Run(map[bool]string{true: "sealed", false: "vxlan"}[sealed], func(t *testing.T) {
			t.Parallel()
			cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: sealed})
			node := cluster.Nodes()[0]
			pod1, neighbour, pod2 := addPod(t, node, "a"), addPod(t, node, "c"), addPod(t, cluster.Nodes()[1], "b")
			expectPings(t, pod1, pod2)
			text := func(addr netip.Addr) string { return addr.String() }
			a4, a6, b4, b6, c4 := text(addrOf(t, pod1, false)), text(addrOf(t, pod1, true)), text(addrOf(t, pod2, false)), text(addrOf(t, pod2, true)), text(addrOf(t, neighbour, false))
			how := map[bool]string{true: "encrypted", false: "in clear (vxlan)"}[sealed]
			for _, tt := range []struct {
				name      string
				args      []string
				delivered bool
				verdict   string
			}{
				{"to a peer's pod", []string{a4, b4}, true, "sent to node2 at 192.168.77.2:9338, " + how},
				{"to a peer's pod, IPv6", []string{a6, b6}, true, "sent to node2 at 192.168.77.2:9338, " + how},
				{"to a peer's pod, without a source", []string{b4}, true, "sent to node2 at 192.168.77.2:9338, " + how},
				{"to a pod of this node", []string{a4, c4}, true, "delivered to pod "},
				{"to this node", []string{a4, "192.168.77.1"}, true, "delivered to this node, node1, itself"},
				{"to a peer node", []string{a4, "192.168.77.2"}, true, "sent to node2 at 192.168.77.2:9338, " + how},
				{"to weft's port of a peer node", []string{a4, "192.168.77.2", "--protocol=udp", "--port=9338"}, false, "dropped here by the guard table, tunnel_in_tunnel: "},
				{"to the outside", []string{a4, testnet.OutsideAddr4.String()}, true, "leaves this node by eth0 with the source 192.168.77.1, outside the overlay"},
				{"to the outside, IPv6", []string{a6, testnet.OutsideAddr6.String()}, true, "leaves this node by eth0 with the source fd00:77::1, outside the overlay"},
				{"to an address that no node has", []string{a4, "10.244.99.1"}, false, "dropped here: no node has the destination 10.244.99.1; "},
				{"to an address of this node that no pod has", []string{a4, "10.244.1.77"}, false, "dropped here: no pod of this node has the destination 10.244.1.77; "},
				{"from an address that no pod has", []string{"10.244.1.77", b4}, false, "no pod of this node has the source address 10.244.1.77"},
				{"from an address that no node has", []string{"10.244.99.1", a4}, false, "no node has the source address 10.244.99.1"},
				{"from this node to a peer's pod", []string{"10.244.1.1", b4}, true, "sent to node2 at 192.168.77.2:9338, " + how},
				{"from this node's endpoint to a peer's pod", []string{"192.168.77.1", b4}, true, "sent to node2 at 192.168.77.2:9338, " + how},
				{"from this node to its pod", []string{"192.168.77.1", a4}, true, "delivered to pod "},
				{"from this node to a peer node", []string{"192.168.77.1", "192.168.77.2"}, true, "leaves this node by eth0 with the source 192.168.77.1, outside the overlay"},
				{"from a peer's pod", []string{b4, a4}, true, "delivered to pod "},
				{"from a peer's pod, IPv6", []string{b6, a6}, true, "delivered to pod "},
				{"from a peer's pod to this node", []string{b4, "192.168.77.1"}, true, "delivered to this node, node1, itself"},
				{"from a peer node to this node", []string{"192.168.77.2", "192.168.77.1"}, true, "delivered to this node, node1, itself"},
				{"from a peer node to a pod", []string{"192.168.77.2", a4}, true, "delivered to pod "},
				{"from a peer's pod to an address without a pod", []string{b4, "10.244.1.77"}, false, "dropped here: no pod of this node has the destination 10.244.1.77; "},
				{"from a peer's pod to the outside", []string{b4, testnet.OutsideAddr4.String()}, false, "dropped here by weftd, destination_not_local: "},
				{"from the outside to a pod", []string{testnet.OutsideAddr4.String(), a4}, false, "dropped here by the guard table, bare_to_pod: "},
			} {
				e := explained(t, node, tt.args...)
				if e.Verdict.Delivered != tt.delivered || !strings.HasPrefix(e.Verdict.Text, tt.verdict) || !tt.delivered && e.Verdict.Remedy == "" {
					t.Errorf("%s: %+v\n%s", tt.name, e.Verdict, weft(t, node, append([]string{"explain"}, tt.args...)...).stdout)
				}
			}
			text1 := weft(t, node, "explain", a4, b4).stdout
			if want := map[bool]string{true: "\nverdict  node2 says: delivered to a pod of this node by weft", false: "\nverdict  sent to node2 at "}[sealed]; !strings.Contains(text1, want) {
				t.Errorf("no %q in\n%s", want, text1)
			}
			t.Log(text1)
		})
	}
}

// TestExplainNamesWhatDrops makes what an operator may meet, and asks for it.
func TestExplainNamesWhatDrops(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := sealedPods(t)
	node := cluster.Nodes()[0]
	expectPings(t, pod1, pod2)
	a, b := addrOf(t, pod1, false).String(), addrOf(t, pod2, false).String()
	for _, tt := range []struct{ name, make, undo, want string }{
		{"a filter of another program", "nft add table ip f; nft 'add chain ip f F { type filter hook forward priority 0; policy drop; }'", "nft delete table ip f",
			"dropped here by another program's filter, nftables chain ip f F (hook forward): its policy is drop"},
		{"a filter of another program for weftd's datagrams", "nft add table ip f; nft 'add chain ip f O { type filter hook output priority 0; }'; nft add rule ip f O udp dport 9338 drop", "nft delete table ip f",
			"dropped here by another program's filter, nftables chain ip f O (hook output): rule with handle "},
		{"a more specific route of another program", "ip route add " + b + " via 192.168.77.254", "ip route del " + b,
			"dropped here by the guard table, bare_to_underlay: "},
		{"no way to the peer", "ip route add unreachable 192.168.77.2", "ip route del unreachable 192.168.77.2",
			"dropped here by weftd, unreachable: "},
	} {
		run(t, node.Namespace, "sh", "-ec", tt.make)
		if e := explained(t, node, a, b); e.Verdict.Delivered || !strings.HasPrefix(e.Verdict.Text, tt.want) {
			t.Errorf("%s: %+v, want %q\n%s", tt.name, e.Verdict, tt.want, weft(t, node, "explain", a, b).stdout)
		}
		run(t, node.Namespace, "sh", "-ec", tt.undo)
	}
	if e := explained(t, node, a, b); !e.Verdict.Delivered {
		t.Errorf("afterwards: %+v", e.Verdict)
	}
	cluster.Nodes()[1].Kill()
	sendOn(t, pod1, addrOf(t, pod2, false))
	eventually(t, "weft explain to say that node2 is unreachable", func() error {
		if e := explained(t, node, a, b); e.Verdict.Delivered || !strings.HasPrefix(e.Verdict.Text, "not delivered: peer node2 is unreachable: ") {
			return fmt.Errorf("%+v", e.Verdict)
		}
		return nil
	})
}

// TestExplainAsksThePeer: what becomes of a packet at the other node, the other node says.
func TestExplainAsksThePeer(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := sealedPods(t)
	node, other := cluster.Nodes()[0], cluster.Nodes()[1]
	a, b := addrOf(t, pod1, false).String(), addrOf(t, pod2, false).String()
	expect := func(name, from, to, want string) status.Explanation {
		t.Helper()
		var e status.Explanation
		eventually(t, "an explanation: "+name, func() error { // a node answers a few in a second
			if e = explained(t, node, from, to); !strings.HasPrefix(e.Overall.Text, want) {
				return fmt.Errorf("%+v, want %q\n%s", e.Overall, want, weft(t, node, "explain", from, to).stdout)
			}
			return nil
		})
		return e
	}
	// No packet has passed yet, so the question has the nodes agree on keys.
	e := expect("to a peer's pod", a, b, "node2 says: delivered to a pod of this node by ")
	if e.PeerSide == nil || strings.Contains(fmt.Sprint(e.PeerSide), pod2.PodName+"/") {
		t.Errorf("the peer names a pod: %+v", e.PeerSide)
	}
	expect("from a peer's pod", b, a, "delivered to pod ")
	expect("to an address that no pod of the peer has", a, "10.244.2.99", "node2 says: dropped here: no pod of this node has the destination 10.244.2.99")
	expect("from an address that no pod of the peer has", "10.244.2.99", a, "node2 says: no pod of this node has the source address 10.244.2.99")
	expect("to the peer itself", a, "192.168.77.2", "node2 says: delivered to this node, node2, itself")
	run(t, other.Namespace, "sh", "-ec", "nft add table ip f; nft 'add chain ip f F { type filter hook forward priority 0; policy drop; }'")
	expect("to a peer's pod that a filter there hides", a, b, "node2 says: dropped here by another program's filter, nftables chain ip f F (hook forward): its policy is drop")
}

func TestExplainMisuse(t *testing.T) {
	t.Parallel()
	node := startCluster(t, testnet.ClusterOptions{Nodes: 1}).Nodes()[0]
	for _, tt := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"explain", "10.244.2"}, 2, `weft: "10.244.2" is not an IP address; write one like 10.244.2.7; `},
		{[]string{"explain", "10.244.1.1", "fd00:244:2::1"}, 1, "weft: 10.244.1.1 and fd00:244:2::1 are of different families"},
		{[]string{"explain", "--protocol=sctp", "10.244.1.1"}, 2, `weft: unknown protocol "sctp"; there are tcp and udp`},
	} {
		if got := weft(t, node, tt.args...); got.status != tt.status || !strings.HasPrefix(got.stderr, tt.want) {
			t.Errorf("weft %v: exit status %d, %q; want %d, %q", tt.args, got.status, got.stderr, tt.status, tt.want)
		}
	}
}
