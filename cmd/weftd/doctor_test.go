package main_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/testnet"
)

// examine runs weft doctor on a node.
func examine(t *testing.T, node *testnet.Node) outcome {
	t.Helper()
	return finish(t, node.Command(t.Context(), filepath.Join(binDir, "weft"), "doctor", "--config", filepath.Join(node.Dir(), "weft.yaml")))
}

// expectCause waits until weft doctor names the cause of a fault in its first five lines.
func expectCause(t *testing.T, node *testnet.Node, fault, cause string) {
	t.Helper()
	expectCauseWith(t, node, fault, cause, func() {})
}

// expectCauseWith is expectCause with something that is done before each look.
func expectCauseWith(t *testing.T, node *testnet.Node, fault, cause string, before func()) {
	t.Helper()
	eventually(t, "weft doctor to name "+fault, func() error {
		before()
		o := examine(t, node)
		lines := strings.SplitAfterN(o.stdout, "\n", 6)
		if head := strings.Join(lines[:min(5, len(lines))], ""); o.status != 1 || !strings.Contains(head, cause) {
			return fmt.Errorf("exit status %d, and the first five lines don't say %q:\n%s%s", o.status, cause, o.stdout, o.stderr)
		}
		return nil
	})
}

// expectWell waits until weft doctor finds no fault.
func expectWell(t *testing.T, node *testnet.Node, when string) {
	t.Helper()
	eventually(t, "weft doctor to find no fault "+when, func() error {
		o := examine(t, node)
		if o.status != 0 || strings.Contains(o.stdout, "FAILED") {
			return fmt.Errorf("exit status %d:\n%s%s", o.status, o.stdout, o.stderr)
		}
		return nil
	})
}

// TestDoctorBesideWeftd has faults on a node of a running cluster, one after the other, and
// doctor name the cause of each.
func TestDoctorBesideWeftd(t *testing.T) {
	t.Parallel()
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true, Configure: func(weft map[string]any) {
		if weft["node"] == "node1" { // which has two addresses for pods
			weft["ipam"] = map[string]any{"reserved": []string{"10.244.1.4/30", "10.244.1.8/29", "10.244.1.16/28", "10.244.1.32/27", "10.244.1.64/26", "10.244.1.128/25"}}
		}
	}})
	node, other := cluster.Nodes()[0], cluster.Nodes()[1]
	pod, far := addPod(t, node, "pod"), addPod(t, other, "far")
	expectWell(t, node, "in a cluster that works")

	for _, tt := range []struct{ fault, makes, undoes, cause string }{
		{"a FORWARD policy", "iptables-nft -P FORWARD DROP", "iptables-nft -P FORWARD ACCEPT", "host_forward_filter: iptables chain FORWARD drops packets"},
		{"a routing rule", "ip route add 10.244.0.0/16 dev eth0 table 100; ip rule add pref 100 lookup 100", "ip rule del pref 100; ip route flush table 100", "host_routing_rule: the routing rule of priority 100"},
		{"a foreign conflist", "echo '{\"cniVersion\":\"1.0.0\",\"name\":\"old\",\"type\":\"bridge\"}' >" + node.ConfDir() + "/00-old.conf", "rm " + node.ConfDir() + "/00-old.conf", "cni_network: the container runtime uses " + node.ConfDir() + "/00-old.conf"},
		{"a broken list", "cp " + node.Dir() + "/nodes.yaml " + node.Dir() + "/kept; echo nodes >" + node.Dir() + "/nodes.yaml", "mv " + node.Dir() + "/kept " + node.Dir() + "/nodes.yaml", "control_source: " + node.Dir() + "/nodes.yaml:1: "},
	} {
		run(t, node.Namespace, "sh", "-ec", tt.makes)
		expectCause(t, node, tt.fault, tt.cause)
		run(t, node.Namespace, "sh", "-ec", tt.undoes)
		expectWell(t, node, "after "+tt.fault)
	}

	addPod(t, node, "second")
	expectCause(t, node, "an exhausted pool", "pool_exhausted: no pod can be added")
	if err := node.DeletePod(t.Context(), "second"); err != nil {
		t.Fatal(err)
	}
	expectWell(t, node, "after the pool was exhausted")

	ping := func() { // or weftd would not miss a peer
		_, _ = pod.Exec(t.Context(), "ping", "-c1", "-W1", addrOf(t, far, false).String())
	}
	wrong := other.Entry()
	wrong.Key = strings.Repeat("ab", 32)
	if err := node.SetNodes([]testnet.NodeEntry{node.Entry(), wrong}); err != nil {
		t.Fatal(err)
	}
	expectCauseWith(t, node, "a peer's wrong key", "peers_unreachable: node2 is unreachable: this node's list has another key for node2", ping)
	if err := errors.Join(cluster.Publish(), other.Stop(t.Context())); err != nil {
		t.Fatal(err)
	}
	expectCauseWith(t, node, "the dead peer", "peers_unreachable: node2 is unreachable: node2 does not answer at ", ping)

	// Without weftd the cause comes before that.
	if err := node.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectCause(t, node, "that weftd does not run", "weftd: weftd does not run")
	run(t, node.Namespace, "nft", "flush", "table", "inet", "weft")
	expectCause(t, node, "the flushed guard", "it has 0 rules")
	var thief net.PacketConn
	if err := node.Do(func() (err error) {
		thief, err = net.ListenPacket("udp4", "0.0.0.0:9338")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	expectCause(t, node, "the owner of the port", fmt.Sprintf("(pid %d)", os.Getpid()))
}
