package control

import (
	"net/netip"
	"strings"
	"testing"

	"weft/peer"
)

func withMAC(n Node, mac peer.MAC) Node {
	n.VTEPMAC = mac
	return n
}

func TestStatesThatMakeNoPlan(t *testing.T) {
	node1 := node(2, "node1", "192.168.77.1:9338", "10.244.1.0/24")
	tests := []struct {
		name  string
		nodes []Node
		want  string
	}{
		{"an empty list", nil, `nodes.yaml: this node, "node1", is not in the list of nodes, which is empty; add it, or set the configuration's key node to its name there`},
		{"a list without this node", []Node{node(2, "node2", "192.168.77.2:9338", "10.244.2.0/24"), node(5, "node3", "192.168.77.3:9338", "10.244.3.0/24")}, `nodes.yaml: this node, "node1", is not in the list of nodes, which has "node2", "node3"; add it, or set the configuration's key node to its name there`},
		{"a long list without this node", []Node{
			node(1, "a", "192.168.77.1:9338", "10.244.1.0/24"), node(2, "b", "192.168.77.2:9338", "10.244.2.0/24"),
			node(3, "c", "192.168.77.3:9338", "10.244.3.0/24"), node(4, "d", "192.168.77.4:9338", "10.244.4.0/24"),
			node(5, "e", "192.168.77.5:9338", "10.244.5.0/24"), node(6, "f", "192.168.77.6:9338", "10.244.6.0/24"),
			node(7, "g", "192.168.77.7:9338", "10.244.7.0/24"),
		}, `nodes.yaml: this node, "node1", is not in the list of nodes, which has "a", "b", "c", "d", "e", and 2 more; add it, or set the configuration's key node to its name there`},
		{"names", []Node{
			node1,
			node(5, "node1", "192.168.77.2:9338", "10.244.2.0/24"),
			node(8, "Node3", "192.168.77.3:9338", "10.244.3.0/24"),
			node(11, "", "192.168.77.4:9338", "10.244.4.0/24"),
			node(14, "../\x1b[31m", "192.168.77.5:9338", "10.244.5.0/24"),
			node(17, strings.Repeat("a", 254), "192.168.77.6:9338", "10.244.6.0/24"),
		}, `nodes.yaml:5: node1: the name is taken (nodes.yaml:2); rename or remove one of the two
nodes.yaml:8: "Node3": "Node3" is not a valid node name; use lower-case letters, digits, '-' and '.', with a letter or digit at both ends of every part
nodes.yaml:11: "": the node has no name; give it the one that its weftd runs under
nodes.yaml:14: "../\x1b[31m": "../\x1b[31m" is not a valid node name; use lower-case letters, digits, '-' and '.', with a letter or digit at both ends of every part
nodes.yaml:17: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"...: the name has 254 characters; shorten it to at most 253`},
		{"endpoints", []Node{
			node1,
			node(3, "none", "", "10.244.3.0/24"),
			node(4, "port-0", "192.168.77.4:0", "10.244.4.0/24"),
			node(5, "unspecified", "0.0.0.0:9338", "10.244.5.0/24"),
			node(6, "unspecified-6", "[::]:9338", "10.244.6.0/24"),
			node(7, "loopback", "127.0.0.7:9338", "10.244.7.0/24"),
			node(8, "multicast", "[ff02::1]:9338", "10.244.8.0/24"),
			node(9, "broadcast", "255.255.255.255:9338", "10.244.9.0/24"),
			node(10, "mapped", "[::ffff:192.168.77.10]:9338", "10.244.10.0/24"),
			node(11, "zone", "[fe80::1%eth0]:9338", "10.244.11.0/24"),
			node(12, "link-local", "[fe80::1]:9338", "10.244.12.0/24"),
			node(13, "in-the-overlay", "10.244.200.1:9338", "10.244.13.0/24"),
			node(14, "taken", "192.168.77.1:9999", "10.244.14.0/24"),
		}, `nodes.yaml:3: none: endpoint: the address is missing; write it like 192.168.77.1:9338 or [fd00:77::1]:9338
nodes.yaml:4: port-0: endpoint: 192.168.77.4:0 has port 0; write a port from 1 to 65535
nodes.yaml:5: unspecified: endpoint: 0.0.0.0 is unspecified; write the address under which the other nodes reach this one
nodes.yaml:6: unspecified-6: endpoint: :: is unspecified; write the address under which the other nodes reach this one
nodes.yaml:7: loopback: endpoint: 127.0.0.7 is loopback; write the address under which the other nodes reach this one
nodes.yaml:8: multicast: endpoint: ff02::1 is multicast or broadcast; write the address under which the other nodes reach this one
nodes.yaml:9: broadcast: endpoint: 255.255.255.255 is multicast or broadcast; write the address under which the other nodes reach this one
nodes.yaml:10: mapped: endpoint: [::ffff:192.168.77.10]:9338 is IPv4-mapped; write 192.168.77.10:9338
nodes.yaml:11: zone: endpoint: "[fe80::1%eth0]:9338" has a zone; use an address that needs none
nodes.yaml:12: link-local: endpoint: fe80::1 is link-local; write the address under which the other nodes reach this one
nodes.yaml:13: in-the-overlay: endpoint: 10.244.200.1 is inside the cluster CIDR 10.244.0.0/16, so datagrams to it would be routed into the overlay itself; write an underlay address or move the cluster CIDR
nodes.yaml:14: taken: the endpoint address 192.168.77.1 is taken by node node1 (nodes.yaml:2); give each node its own`},
		{"further addresses", []Node{
			node1,
			withAddresses(node(3, "fine", "192.168.77.3:9338", "10.244.3.0/24"), "192.168.77.3", "192.168.78.3", "192.168.78.3", "fd00:77::3", "192.168.77.1"),
			withAddresses(node(4, "pods", "192.168.77.4:9338", "10.244.4.0/24"), "10.244.4.9"),
			withAddresses(node(5, "loopback", "192.168.77.5:9338", "10.244.5.0/24"), "::1"),
			withAddresses(node(6, "zone", "192.168.77.6:9338", "10.244.6.0/24"), "fe80::1%eth0"),
			withAddresses(node(7, "many", "192.168.77.7:9338", "10.244.7.0/24"), "::2", "::2", "::2", "::2", "::2", "::2", "::2"),
		}, `nodes.yaml:4: pods: addresses: 10.244.4.9 is inside the cluster CIDR 10.244.0.0/16, so datagrams to it would be routed into the overlay itself; write an underlay address or move the cluster CIDR
nodes.yaml:5: loopback: addresses: ::1 is loopback; write the address under which the other nodes reach this one
nodes.yaml:6: zone: addresses: fe80::1%eth0 is no address of an underlay; write the address under which the other nodes reach this one
nodes.yaml:7: many: addresses: 7 are more than 6; remove those that pods don't need`},
		{"pod CIDRs", []Node{
			node1,
			node(3, "none", "192.168.77.3:9338"),
			node(4, "outside", "192.168.77.4:9338", "10.245.4.0/24"),
			node(5, "wider", "192.168.77.5:9338", "10.0.0.0/8"),
			node(6, "no-room", "192.168.77.6:9338", "10.244.6.0/31", "fd00:244::/127"),
			node(7, "smallest", "192.168.77.7:9338", "10.244.7.0/30", "fd00:244::8/126"),
			node(8, "loose", "192.168.77.8:9338", "10.244.8.1/24"),
			node(9, "mapped", "192.168.77.9:9338", "::ffff:10.244.9.0/120"),
			{Name: "invalid", Endpoint: netip.MustParseAddrPort("192.168.77.10:9338"), PodCIDRs: []netip.Prefix{{}}},
		}, `invalid: pod CIDR: the prefix is invalid; write it like 10.244.0.0/16 or fd00:244::/48
nodes.yaml:3: none: has no pod CIDRs; give it one within the cluster CIDRs
nodes.yaml:4: outside: pod CIDR 10.245.4.0/24 is in none of the cluster CIDRs (10.244.0.0/16, fd00:244::/48); choose one within them, or add it to clusterCIDRs
nodes.yaml:5: wider: pod CIDR 10.0.0.0/8 is in none of the cluster CIDRs (10.244.0.0/16, fd00:244::/48); choose one within them, or add it to clusterCIDRs
nodes.yaml:6: no-room: pod CIDR 10.244.6.0/31 has no room for a pod; write a /30 or wider
nodes.yaml:6: no-room: pod CIDR fd00:244::/127 has no room for a pod; write a /126 or wider
nodes.yaml:8: loose: pod CIDR: 10.244.8.1/24 has bits set behind its length; write 10.244.8.0/24
nodes.yaml:9: mapped: pod CIDR: ::ffff:10.244.9.0/120 is IPv4-mapped; write 10.244.9.0/24`},
		{"overlaps", []Node{
			node1,
			node(3, "same", "192.168.77.3:9338", "10.244.1.0/24"),
			node(4, "wide", "192.168.77.4:9338", "10.244.16.0/20"),
			node(5, "inside", "192.168.77.5:9338", "10.244.17.0/24", "fd00:244::/56"),
			node(6, "inside-2", "192.168.77.6:9338", "10.244.17.128/25", "fd00:244:0:80::/64"),
			node(7, "own", "192.168.77.7:9338", "10.244.40.0/24", "10.244.40.64/26"),
		}, `nodes.yaml:3: same: pod CIDR 10.244.1.0/24 overlaps 10.244.1.0/24 of node node1 (nodes.yaml:2); give every node ranges of its own
nodes.yaml:5: inside: pod CIDR 10.244.17.0/24 overlaps 10.244.16.0/20 of node wide (nodes.yaml:4); give every node ranges of its own
nodes.yaml:6: inside-2: pod CIDR 10.244.17.128/25 overlaps 10.244.17.0/24 of node inside (nodes.yaml:5); give every node ranges of its own
nodes.yaml:6: inside-2: pod CIDR fd00:244:0:80::/64 overlaps fd00:244::/56 of node inside (nodes.yaml:5); give every node ranges of its own
nodes.yaml:7: own: pod CIDR 10.244.40.64/26 overlaps the node's own 10.244.40.0/24; give every node ranges of its own`},
		{"VTEP MACs", []Node{
			node1,
			withMAC(node(3, "multicast", "192.168.77.3:9338", "10.244.3.0/24"), peer.MAC{0x01, 0, 0x5e, 0, 0, 1}),
			withMAC(node(4, "broadcast", "192.168.77.4:9338", "10.244.4.0/24"), peer.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}),
			withMAC(node(5, "written", "192.168.77.5:9338", "10.244.5.0/24"), peer.MAC{2, 0, 0, 0, 0, 5}),
			withMAC(node(6, "written-twice", "192.168.77.6:9338", "10.244.6.0/24"), peer.MAC{2, 0, 0, 0, 0, 5}),
			withMAC(node(7, "derived", "192.168.77.7:9338", "10.244.7.0/24"), peer.DeriveMAC("node1")),
		}, `nodes.yaml:3: multicast: the VTEP MAC 01:00:5e:00:00:01 is multicast; write one whose first byte is even, such as 02:00:5e:00:00:01
nodes.yaml:4: broadcast: the VTEP MAC ff:ff:ff:ff:ff:ff is multicast; write one whose first byte is even, such as fe:ff:ff:ff:ff:ff
nodes.yaml:6: written-twice: the VTEP MAC 02:00:00:00:00:05 is taken by node written (nodes.yaml:5); give one of the two another
nodes.yaml:7: derived: the VTEP MAC 02:ca:12:f3:1b:8c is taken by node node1 (nodes.yaml:2); give one of the two another`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewPlan(State{Origin: "nodes.yaml", Nodes: tt.nodes}, Options{Node: "node1", ClusterCIDRs: clusterCIDRs})
			if err == nil {
				t.Fatal("accepted")
			}
			if got := err.Error(); got != tt.want {
				t.Errorf("error:\n%s\nwant:\n%s", got, tt.want)
			}
		})
	}
}

func withAddresses(n Node, addresses ...string) Node {
	n.Addresses = addrs(addresses...)
	return n
}

func withKey(n Node, b byte) Node {
	n.Key = peer.Fingerprint{b}
	return n
}

func TestKeysThatMakeNoPlan(t *testing.T) {
	node1 := withKey(node(2, "node1", "192.168.77.1:9338", "10.244.1.0/24"), 1)
	node2 := withKey(node(3, "node2", "192.168.77.2:9338", "10.244.2.0/24"), 2)
	node3 := node(4, "node3", "192.168.77.3:9338", "10.244.3.0/24")
	tests := []struct {
		name  string
		nodes []Node
		want  string
	}{
		{"nodes without one", []Node{node1, node2, node3, node(5, "node4", "192.168.77.4:9338", "10.244.4.0/24")},
			`nodes.yaml:4: node3: NONE
nodes.yaml:5: node4: NONE`},
		{"this node without one", []Node{withKey(node1, 0), node2}, `nodes.yaml:2: node1: NONE`},
		{"one of two nodes", []Node{node1, node2, withKey(node3, 2)},
			"nodes.yaml:4: node3: the key is that of node node2 (nodes.yaml:3); run `weft keygen` on one of the two"},
		{"one of three nodes, of which this is the last", []Node{withKey(node2, 1), withKey(node3, 1), node1},
			"nodes.yaml:2: node1: the key is that of node node3 (nodes.yaml:4); run `weft keygen` on one of the two\n" +
				"nodes.yaml:4: node3: the key is that of node node2 (nodes.yaml:3); run `weft keygen` on one of the two"},
		{"not that of this node's key file", []Node{withKey(node1, 7), node2},
			`nodes.yaml:2: node1: this node's key is 01ZEROS, not 07ZEROS; write the first under key, or set the configuration's key keyFile to the file of the other`},
		{"another's key file on this node", []Node{withKey(node1, 2), withKey(node2, 1)},
			`nodes.yaml:2: node1: this node's key is 01ZEROS, not 02ZEROS; write the first under key, or set the configuration's key keyFile to the file of the other`},
		{"a kernel VXLAN device", []Node{node1, withMAC(node2, peer.MAC{2, 0, 0, 0, 0, 2}), withMAC(node3, peer.MAC{2, 0, 0, 0, 0, 3})},
			`nodes.yaml:3: node2: KERNEL
nodes.yaml:4: node3: KERNEL`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			state := State{Origin: "nodes.yaml", Nodes: tt.nodes}
			_, err := NewPlan(state, Options{Node: "node1", ClusterCIDRs: clusterCIDRs, Key: peer.Fingerprint{1}})
			if err == nil {
				t.Fatal("accepted")
			}
			want := strings.NewReplacer(
				"NONE", "has no key, which the encapsulation sealed needs; run `weft keygen` there, and write the fingerprint that it prints under key",
				"KERNEL", "has a vtepMAC, so it is a kernel VXLAN device, which does not understand the encapsulation sealed; remove the node or its vtepMAC",
				"ZEROS", strings.Repeat("00", len(peer.Fingerprint{})-1),
			).Replace(tt.want)
			if got := err.Error(); got != want {
				t.Errorf("error:\n%s\nwant:\n%s", got, want)
			}
			if _, err := NewPlan(state, Options{Node: "node1", ClusterCIDRs: clusterCIDRs}); err != nil {
				t.Errorf("where keys don't matter: %v", err)
			}
		})
	}
}

func TestEveryPeerOfAPlanHasItsKey(t *testing.T) {
	p := keyedPlan(t)
	if p.Self.Key != (peer.Fingerprint{1}) || len(p.Peers) != 2 || p.Peers[0].Key != (peer.Fingerprint{2}) || p.Peers[1].Key != (peer.Fingerprint{3}) {
		t.Errorf("%v, %v", p.Self, p.Peers)
	}
}

func TestWrongNodeIsRejectedAlone(t *testing.T) {
	node1 := withKey(node(1, "node1", "192.168.77.1:9338", "10.244.1.0/24"), 1)
	node2 := withKey(node(2, "node2", "192.168.77.2:9338", "10.244.2.0/24"), 2)
	for name, wrong := range map[string]Node{
		"name":            withKey(node(3, "../node3", "192.168.77.3:9338", "10.244.3.0/24"), 3),
		"endpoint":        withKey(node(3, "node3", "127.0.0.1:9338", "10.244.3.0/24"), 3),
		"another's":       withKey(node(3, "node3", "192.168.77.1:9339", "10.244.3.0/24"), 3),
		"no CIDR":         withKey(node(3, "node3", "192.168.77.3:9338"), 3),
		"foreign CIDR":    withKey(node(3, "node3", "192.168.77.3:9338", "10.244.1.0/24"), 3),
		"part of it":      withKey(node(3, "node3", "192.168.77.3:9338", "10.244.1.128/25"), 3),
		"all CIDRs":       withKey(node(3, "node3", "192.168.77.3:9338", "10.244.0.0/16"), 3),
		"outside":         withKey(node(3, "node3", "192.168.77.3:9338", "192.168.0.0/16"), 3),
		"no key":          node(3, "node3", "192.168.77.3:9338", "10.244.3.0/24"),
		"another's key":   withKey(node(3, "node3", "192.168.77.3:9338", "10.244.3.0/24"), 1),
		"own name, again": withKey(node(3, "node1", "192.168.77.3:9338", "10.244.3.0/24"), 3),
	} {
		t.Run(name, func(t *testing.T) {
			opts := Options{Node: "node1", ClusterCIDRs: clusterCIDRs, Key: peer.Fingerprint{1}}
			// What the refused node claims is free for one that comes later.
			node4 := withKey(node(4, "node4", "192.168.77.3:9338", "10.244.3.0/24"), 4)
			want, err := NewPlan(State{Nodes: []Node{node1, node2, node4}}, opts)
			if err != nil {
				t.Fatal(err)
			}
			p, err := NewPlan(State{Nodes: []Node{node1, node2, wrong, node4}, Registered: true}, opts)
			if err != nil {
				t.Fatal(err)
			}
			if !p.Equal(want) {
				t.Errorf("plan (-want +got):\n%s", diff(want, p))
			}
			if p.Refused == nil || !strings.HasPrefix(p.Refused.Error(), "nodes.yaml:3: ") || strings.Contains(p.Refused.Error(), "\n") && name != "own name, again" {
				t.Errorf("refused: %v", p.Refused)
			}
		})
	}
}

func TestWhoRegisteredFirstIsRight(t *testing.T) {
	claimsAll := node(1, "node0", "192.168.77.9:9338", "10.244.0.0/17")
	node1 := node(2, "node1", "192.168.77.1:9338", "10.244.1.0/24")
	_, err := NewPlan(State{Nodes: []Node{claimsAll, node1}, Registered: true}, Options{Node: "node1", ClusterCIDRs: clusterCIDRs})
	const want = "this node is refused: nodes.yaml:2: node1: pod CIDR 10.244.1.0/24 overlaps 10.244.0.0/17 of node node0 (nodes.yaml:1); give every node ranges of its own"
	if err == nil || err.Error() != want {
		t.Errorf("error:\n%v\nwant:\n%s", err, want)
	}
}

func TestWithoutClusterCIDRsNothingFits(t *testing.T) {
	_, err := NewPlan(threeNodes(), Options{Node: "node1"})
	if err == nil || !strings.Contains(err.Error(), "in none of the cluster CIDRs") {
		t.Error(err)
	}
}
