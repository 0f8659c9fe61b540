package main_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"weft/internal/testnet"
)

// TestPeerFaultsAreNamed has faults of a peer and of the path to it, which keys and probes show: over
// either family of the underlay.
func TestPeerFaultsAreNamed(t *testing.T) {
	t.Parallel()
	t.Run("sealed", func(t *testing.T) {
		t.Parallel()
		p := startPair(t, newCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true, Configure: func(weft map[string]any) {
			weft["tun"].(map[string]any)["lanes"] = 2 // one is cut off
		}}))
		down := p.down()
		down.status, down.doctor = "peer node2 is unreachable: node2 does not answer at 192.168.77.2:9338", "peers_unreachable: node2 is unreachable: node2 does not answer at 192.168.77.2:9338"
		expectFaults(t, p.node, []fault{p.blackHole("ip"), p.wrongKey(), p.wrongKeyThere(), down, p.lostRuns("ip"), p.cutOffLane()})
	})
	t.Run("vxlan", func(t *testing.T) {
		t.Parallel()
		p := startPair(t, newCluster(t, testnet.ClusterOptions{Nodes: 2, Underlay6: true}))
		down := p.down()
		down.status, down.doctor = "peer node2 is unreachable: it answered probes before, and does not now", "peers_unreachable: node2 is unreachable: it answered probes before, and does not now"
		since := p.down()
		since.name, since.make = "peer down since before weftd was replaced", func(t *testing.T) {
			p.other.Kill()
			if err := p.node.TakeOver(t.Context(), "--takeover"); err != nil {
				t.Fatal(err)
			}
		}
		since.status, since.doctor = "peer node2 is unreachable: it has answered nothing since this weftd started", "peers_unreachable: node2 is unreachable: it has answered nothing since this weftd started"
		expectFaults(t, p.node, []fault{p.lostRuns("ip6"), p.blackHole("ip6"), down, since})
	})
}

// pair is two nodes with a pod each.
type pair struct {
	cluster     *testnet.Cluster
	node, other *testnet.Node
	pod1, pod2  *testnet.Pod
	packet      []string // from pod1 to pod2
}

func startPair(t *testing.T, cluster *testnet.Cluster) pair {
	t.Helper()
	if err := cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := pair{cluster: cluster, node: cluster.Nodes()[0], other: cluster.Nodes()[1]}
	p.pod1, p.pod2 = addPod(t, p.node, "pod"), addPod(t, p.other, "far")
	p.packet = []string{addrOf(t, p.pod1, false).String(), addrOf(t, p.pod2, false).String()}
	expectPings(t, p.pod1, p.pod2)
	return p
}

// ping sends a packet, or weftd would not miss the peer.
func (p pair) ping(t *testing.T) {
	_, _ = p.pod1.Exec(t.Context(), "ping", "-c1", "-W1", p.packet[1])
}

// blackHole has the way from node to other lose large datagrams, and send no ICMP.
func (p pair) blackHole(family string) fault {
	return fault{
		name: "MTU black hole",
		make: sh(p.cluster.Segment.Namespace, fmt.Sprintf("nft 'table bridge hole { chain c { type filter hook prerouting priority 0; %s saddr %s udp dport 9338 meta length > 1400 drop; }; }'",
			family, p.node.Entry().Endpoint.Addr())),
		again: p.ping,
		undo: func(t *testing.T) {
			run(t, p.cluster.Segment.Namespace, "nft", "delete", "table", "bridge", "hole")
			probe(t, p.node, "node2")
		},
		status: "the path to node2 loses packets of more than ", doctor: "path_mtu: the path to node2 loses packets of more than ",
		metric: "weft_peers_path_mtu_reduced", value: "1", alert: "WeftPathMTUReduced",
	}
}

// wrongKey is one of the peer's in this node's list.
func (p pair) wrongKey() fault {
	return fault{
		name: "wrong key",
		make: func(t *testing.T) {
			wrong := p.other.Entry()
			wrong.Key = strings.Repeat("ab", 32)
			p.list(t, p.node, p.node.Entry(), wrong)
		},
		again: p.ping, undo: p.publish,
		status: "peer node2 is unreachable: this node's list has another key for node2 than the node at 192.168.77.2:9338 presents",
		doctor: "peers_unreachable: node2 is unreachable: this node's list has another key for node2 than the node at 192.168.77.2:9338 presents",
		packet: p.packet, explain: "not delivered: peer node2 is unreachable: this node's list has another key for node2",
		metric: `weft_peer_states{state="unreachable"}`, value: "1", alert: "WeftPeerUnreachable",
	}
}

// wrongKeyThere is one of this node's in the peer's list.
func (p pair) wrongKeyThere() fault {
	return fault{
		name: "wrong key in the peer's list",
		make: func(t *testing.T) {
			wrong := p.node.Entry()
			wrong.Key = strings.Repeat("ab", 32)
			p.list(t, p.other, wrong, p.other.Entry())
		},
		again: p.ping, undo: p.publish,
		status: "peer node2 is unreachable: node2's list has another key for this node, or none; write key: " + p.node.Entry().Key + " for this node there",
		doctor: "peers_unreachable: node2 is unreachable: node2's list has another key for this node, or none",
		packet: p.packet, explain: "not delivered: peer node2 is unreachable: node2's list has another key for this node",
		metric: `weft_peer_states{state="unreachable"}`, value: "1", alert: "WeftPeerUnreachable",
	}
}

func (p pair) list(t *testing.T, node *testnet.Node, entries ...testnet.NodeEntry) {
	t.Helper()
	if err := node.SetNodes(entries); err != nil {
		t.Fatal(err)
	}
}

func (p pair) publish(t *testing.T) {
	t.Helper()
	if err := p.cluster.Publish(); err != nil {
		t.Fatal(err)
	}
}

// down is a peer that was killed; what the first lines say of it depends on the encapsulation.
func (p pair) down() fault {
	return fault{
		name: "peer down", packet: p.packet, explain: "not delivered: peer node2 is unreachable: ",
		make: func(*testing.T) { p.other.Kill() }, again: p.ping,
		undo: func(t *testing.T) {
			if err := p.other.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		},
		metric: `weft_peer_states{state="unreachable"}`, value: "1", alert: "WeftPeerUnreachable",
	}
}

// cutOffLane has the way from node to other lose what leaves by one lane, as one of several links that is
// down does.
func (p pair) cutOffLane() fault {
	return fault{
		name: "one lane cut off",
		make: func(t *testing.T) {
			ports := regexp.MustCompile(`:(\d+)\s`).FindAllStringSubmatch(run(t, p.node.Namespace, "ss", "-Huan", "sport", "!=", "9338"), -1)
			if len(ports) < 2 {
				t.Fatal("this node has one lane")
			}
			run(t, p.cluster.Segment.Namespace, "nft", fmt.Sprintf("table bridge cut { chain c { type filter hook prerouting priority 0; ip saddr %s udp sport %s udp dport 9338 drop; }; }",
				p.node.Entry().Endpoint.Addr(), ports[0][1]))
		},
		again:  p.ping,
		undo:   func(t *testing.T) { run(t, p.cluster.Segment.Namespace, "nft", "delete", "table", "bridge", "cut") },
		status: "get no answer from node2, and those from its other ports do", doctor: "lane_cut_off: probes from UDP port ",
		metric: `weft_warnings{code="lane_cut_off"}`, value: "1", alert: "WeftPathLossy",
	}
}

// lostRuns has the underlay lose what this node sends in runs, as some kernels and cards do.
func (p pair) lostRuns(family string) fault {
	return fault{
		name: "NIC with broken UDP GSO",
		make: sh(p.cluster.Segment.Namespace, fmt.Sprintf("nft 'table bridge runs { chain c { type filter hook prerouting priority 0; %s saddr %s udp dport 9338 meta length > 1600 drop; }; }'",
			family, p.node.Entry().Endpoint.Addr())),
		again:  func(t *testing.T) { transfer(t, p.pod1.Namespace, p.pod2.Namespace, addrOf(t, p.pod2, false), 128<<10) },
		status: "datagrams sent in one message (UDP GSO) get lost on the way to node2", doctor: "udp_gso_lost: datagrams sent in one message (UDP GSO) get lost on the way to node2",
		metric: `weft_warnings{code="udp_gso_lost"}`, value: "1", alert: "WeftUDPGSOLost",
	}
}
