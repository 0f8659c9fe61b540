package main_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

// fault is a row of the fault table: what an operator meets on a node, and where the true cause
// stands. internal/monitoring has each alert fire.
type fault struct {
	name string

	make  func(t *testing.T)
	again func(t *testing.T) // before each look, if it is not nil: as packets that weftd must miss
	undo  func(t *testing.T) // nil: weftd goes on warning of it

	// What must stand in the first five lines of `weft status` and of `weft doctor`, and in those of
	// `weft explain` for packet, if there is one.
	status, doctor string
	packet         []string
	explain        string

	// metric has this value, and the alert, whose expression is of it, is among the rules.
	metric, value, alert string
}

// head is the first five lines of a text.
func head(text string) string {
	lines := strings.SplitAfterN(text, "\n", 6)
	return strings.Join(lines[:min(5, len(lines))], "")
}

// expectFaults makes each fault on a node, waits until all says so, and undoes it.
func expectFaults(t *testing.T, node *testnet.Node, faults []fault) {
	t.Helper()
	for _, f := range faults {
		if !t.Run(f.name, func(t *testing.T) { f.expect(t, node) }) {
			return // what is left of the fault would be in the way of the next one
		}
	}
}

func (f fault) expect(t *testing.T, node *testnet.Node) {
	expectAlert(t, f.alert, f.metric)
	f.make(t)
	look := func(shown outcome, want string) error {
		if want == "" || strings.Contains(head(shown.stdout), want) {
			return nil
		}
		return fmt.Errorf("the first five lines don't say %q:\n%s%s", want, shown.stdout, shown.stderr)
	}
	eventually(t, "all to name the cause", func() error {
		if f.again != nil {
			f.again(t)
		}
		metrics, err := node.Metrics(t.Context())
		if err == nil && metrics[f.metric] != f.value {
			err = fmt.Errorf("%s is %q, want %s", f.metric, metrics[f.metric], f.value)
		}
		errs := []error{err, look(weft(t, node, "status"), f.status), look(examine(t, node), f.doctor)}
		if f.packet != nil {
			errs = append(errs, look(weft(t, node, append([]string{"explain"}, f.packet...)...), f.explain))
		}
		return errors.Join(errs...)
	})
	t.Logf("weft status begins with\n%sweft doctor begins with\n%s", head(weft(t, node, "status").stdout), head(examine(t, node).stdout))
	if f.undo == nil {
		return
	}
	f.undo(t)
	eventually(t, "the cause to be gone", func() error {
		if f.again != nil {
			f.again(t)
		}
		if shown := weft(t, node, "status"); strings.Contains(shown.stdout, f.status) {
			return errors.New(shown.stdout)
		}
		return nil
	})
}

// matcher is a condition on a label, as PromQL writes it.
var matcher = regexp.MustCompile(`([a-z_]+)(=~|!~|!=|=)"([^"]*)"`)

// expectAlert fails unless the rules have the alert, and its expression is of the metric.
func expectAlert(t *testing.T, alert, metric string) {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "../../deploy/prometheus/weft-rules.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	name, rest, _ := strings.Cut(metric, "{")
	labels := map[string]string{}
	for _, m := range matcher.FindAllStringSubmatch(rest, -1) {
		labels[m[1]] = m[3]
	}
	selects := func(conditions string) bool {
		for _, m := range matcher.FindAllStringSubmatch(conditions, -1) {
			equal := regexp.MustCompile("^(?:" + m[3] + ")$").MatchString(labels[m[1]])
			if equal == strings.HasPrefix(m[2], "!") {
				return false
			}
		}
		return true
	}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.Alert != alert {
				continue
			}
			for _, s := range regexp.MustCompile(`\b`+name+`\b(?:\{([^}]*)\})?`).FindAllStringSubmatch(r.Expr, -1) {
				if selects(s[1]) {
					return
				}
			}
			t.Fatalf("the alert %s is not of %s, but of %s", alert, metric, r.Expr)
		}
	}
	t.Fatalf("there is no alert %s", alert)
}

// TestAnUnreachableEtcdIsNamed: the snapshot keeps the node going, and the source's error is named.
func TestAnUnreachableEtcdIsNamed(t *testing.T) {
	t.Parallel()
	c := startEtcdCluster(t, 1, testnet.EtcdOptions{Members: 1})
	expectFaults(t, c.Nodes()[0], []fault{{
		name: "control source unreachable, etcd", make: func(*testing.T) { c.etcd.Kill(1) },
		undo: func(t *testing.T) {
			if err := c.etcd.Start(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		},
		status: "the list of nodes is NOT UP TO DATE: ", doctor: "control_source: ",
		metric: "weft_control_reachable", value: "0", alert: "WeftControlSourceUnreachable",
	}})
}

// sh makes or undoes a fault by a script.
func sh(at *testnet.Namespace, script string) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		run(t, at, "sh", "-ec", script)
	}
}

// TestHostFaultsAreNamed has faults of a host: one cluster has those of IPv4, another one those of IPv6.
func TestHostFaultsAreNamed(t *testing.T) {
	t.Parallel()
	t.Run("sealed", func(t *testing.T) {
		t.Parallel()
		cluster := newCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true, Configure: func(weft map[string]any) {
			if weft["node"] == "node1" { // which has two addresses for pods
				weft["ipam"] = map[string]any{"reserved": []string{"10.244.1.4/30", "10.244.1.8/29", "10.244.1.16/28", "10.244.1.32/27", "10.244.1.64/26", "10.244.1.128/25"}}
			}
		}})
		node := cluster.Nodes()[0]
		ownDisk(t, filepath.Join(node.Dir(), "state"))
		p := startPair(t, cluster)
		expectWell(t, node, "in a cluster that works")
		expectFaults(t, node, append(filterFaults(t, p, false), podFaults(node)...))
	})
	t.Run("vxlan", func(t *testing.T) {
		t.Parallel()
		p := startPair(t, newCluster(t, testnet.ClusterOptions{Nodes: 2}))
		expectFaults(t, p.node, filterFaults(t, p, true))
	})
}

// ownDisk gives a folder a disk of 4 MiB.
func ownDisk(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("weft-test", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// filterFaults are other programs' filters and rules, of a family.
func filterFaults(t *testing.T, p pair, v6 bool) []fault {
	packet := []string{addrOf(t, p.pod1, v6).String(), addrOf(t, p.pod2, v6).String()}
	ip, iptables, cluster := "ip -4", "iptables", "10.244.0.0/16"
	if v6 {
		ip, iptables, cluster = "ip -6", "ip6tables", "fd00:244::/32"
	}
	return []fault{
		{
			name: "FORWARD DROP", make: sh(p.node.Namespace, iptables+"-nft -P FORWARD DROP"), undo: sh(p.node.Namespace, iptables+"-nft -P FORWARD ACCEPT"),
			status: iptables + " chain FORWARD drops packets", doctor: "host_forward_filter: " + iptables + " chain FORWARD drops packets",
			packet: packet, explain: "dropped here by another program's filter, " + iptables + " chain FORWARD",
			metric: `weft_warnings{code="host_forward_filter"}`, value: "1", alert: "WeftForeignFilter",
		},
		{
			name:   "foreign policy rule",
			make:   sh(p.node.Namespace, fmt.Sprintf("%[1]s route add %[2]s dev eth0 table 100; %[1]s rule add pref 100 lookup 100", ip, cluster)),
			undo:   sh(p.node.Namespace, fmt.Sprintf("%[1]s rule del pref 100; %[1]s route flush table 100", ip)),
			status: "the routing rule of priority 100 sends packets to " + cluster + " through table 100",
			doctor: "host_routing_rule: the routing rule of priority 100 sends packets to " + cluster + " through table 100",
			packet: packet, explain: fmt.Sprintf("spoofed_by_pod: another program's route takes packets to %s elsewhere: %s dev eth0 table 100 ", packet[0], cluster),
			metric: `weft_warnings{code="host_routing_rule"}`, value: "1", alert: "WeftForeignRoutingRule",
		},
	}
}

// podFaults keep pods from being added, or this node from knowing others, on a node with two addresses for
// pods, of which one is taken, and a small disk.
func podFaults(node *testnet.Node) []fault {
	foreign, list, kept, full := filepath.Join(node.ConfDir(), "00-old.conf"), nodesFile(node), nodesFile(node)+".kept", filepath.Join(node.Dir(), "state", "full")
	return []fault{
		{
			name: "leases exhausted", make: func(t *testing.T) { addPod(t, node, "second") }, undo: func(t *testing.T) { deletePod(t, node, "second") },
			status: "no pod can be added: ", doctor: "pool_exhausted: no pod can be added: ",
			metric: `weft_pool_addresses{family="ipv4",state="free"}`, value: "0", alert: "WeftPoolExhausted",
		},
		{
			name: "disk full", make: sh(node.Namespace, "head -c 4m /dev/zero >"+full+" || true"), undo: sh(node.Namespace, "rm "+full),
			status: "pods can't be added or removed: the disk with " + filepath.Dir(full) + " is full", doctor: "the disk with " + filepath.Dir(full) + " is full",
			metric: `weft_warnings{code="state_dir"}`, value: "1", alert: "WeftStateDirUnwritable",
		},
		{
			name: "foreign conflist first",
			make: func(t *testing.T) { write(t, foreign, `{"cniVersion":"1.0.0","name":"old","type":"bridge"}`) }, undo: sh(node.Namespace, "rm "+foreign),
			status: "the container runtime uses " + foreign, doctor: "cni_network: the container runtime uses " + foreign,
			metric: `weft_warnings{code="cni_network"}`, value: "1", alert: "WeftOtherCNINetwork",
		},
		{
			name: "control source unreachable, a file", make: sh(node.Namespace, "mv "+list+" "+kept), undo: sh(node.Namespace, "mv "+kept+" "+list),
			status: "the list of nodes is NOT UP TO DATE: ", doctor: "control_source: ",
			metric: `weft_control_reachable`, value: "0", alert: "WeftControlSourceUnreachable",
		},
		{
			name: "guard flushed", make: sh(node.Namespace, "nft flush ruleset"),
			status: "another program removed or changed the guard table, once", doctor: "host_repaired: another program removed or changed the guard table, once",
			metric: `weft_host_repairs_total{object="guard_table"}`, value: "1", alert: "WeftHostRepairs",
		},
	}
}

func deletePod(t *testing.T, node *testnet.Node, name string) {
	t.Helper()
	if err := node.DeletePod(t.Context(), name); err != nil {
		t.Fatal(err)
	}
}

// TestPeerFaultsAreNamed has faults of a peer and of the path to it, which keys and probes show: over
// either family of the underlay.
func TestPeerFaultsAreNamed(t *testing.T) {
	t.Parallel()
	t.Run("sealed", func(t *testing.T) {
		t.Parallel()
		p := startPair(t, newCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true}))
		down := p.down()
		down.status, down.doctor = "peer node2 is unreachable: node2 does not answer at 192.168.77.2:9338", "peers_unreachable: node2 is unreachable: node2 does not answer at 192.168.77.2:9338"
		expectFaults(t, p.node, []fault{p.blackHole("ip"), p.wrongKey(), p.wrongKeyThere(), down, p.lostRuns(), p.cutOffLane()})
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
		expectFaults(t, p.node, []fault{p.blackHole("ip6"), down, since})
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
				t.Skip("this node has one lane")
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
func (p pair) lostRuns() fault {
	return fault{
		name: "NIC with broken UDP GSO",
		make: sh(p.cluster.Segment.Namespace, fmt.Sprintf("nft 'table bridge runs { chain c { type filter hook prerouting priority 0; ip saddr %s udp dport 9338 meta length > 1600 drop; }; }'",
			p.node.Entry().Endpoint.Addr())),
		again:  func(t *testing.T) { transfer(t, p.pod1.Namespace, p.pod2.Namespace, addrOf(t, p.pod2, false), 128<<10) },
		status: "datagrams sent in one message (UDP GSO) get lost on the way to node2", doctor: "udp_gso_lost: datagrams sent in one message (UDP GSO) get lost on the way to node2",
		metric: `weft_warnings{code="udp_gso_lost"}`, value: "1", alert: "WeftUDPGSOLost",
	}
}
