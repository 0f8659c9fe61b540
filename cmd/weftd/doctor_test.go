package main_test

import (
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
	eventually(t, "weft doctor to name "+fault, func() error {
		if o := examine(t, node); o.status != 1 || !strings.Contains(head(o.stdout), cause) {
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

// TestDoctorWithoutWeftd has faults on a node whose weftd was stopped; the fault table has those beside a
// running one.
func TestDoctorWithoutWeftd(t *testing.T) {
	t.Parallel()
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 1, Sealed: true})
	node := cluster.Nodes()[0]
	write(t, nodesFile(node)+".kept", read(t, nodesFile(node)))
	write(t, nodesFile(node), "nodes\n")
	expectCause(t, node, "a broken list", "control_source: "+nodesFile(node)+":1: ")
	write(t, nodesFile(node), read(t, nodesFile(node)+".kept"))
	expectWell(t, node, "after a broken list")

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
