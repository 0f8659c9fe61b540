package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/nodefile"
	"weft/internal/status"
	"weft/internal/testnet"
)

func hangUp(t *testing.T, node *testnet.Node) {
	t.Helper()
	if err := syscall.Kill(node.PID(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// eventuallyCurrent waits until weftd says whether the newest list of nodes is active.
func eventuallyCurrent(t *testing.T, node *testnet.Node, want, rejectedTotal string) {
	t.Helper()
	eventually(t, "weft_state_current "+want+" and weft_state_rejected_total "+rejectedTotal, func() error {
		if current, total := metric(t, node, "weft_state_current"), metric(t, node, "weft_state_rejected_total"); current != want || total != rejectedTotal {
			return fmt.Errorf("they are %s and %s", current, total)
		}
		return nil
	})
}

func TestAHangupReadsTheListAgain(t *testing.T) {
	t.Parallel()
	// Behind a folder that is exchanged by a symbolic link, the list changes without
	// an event that weftd could notice by itself.
	var current string
	cluster := newCluster(t, testnet.ClusterOptions{Nodes: 2, Configure: func(weft map[string]any) {
		dir := filepath.Dir(weft["runDir"].(string))
		weft["control"] = map[string]any{"file": filepath.Join(dir, "current", "nodes.yaml")}
	}})
	node := cluster.Nodes()[0]
	current = filepath.Join(node.Dir(), "current")
	for name, entries := range map[string][]testnet.NodeEntry{
		"alone": {node.Entry()},
		"both":  {node.Entry(), cluster.Nodes()[1].Entry()},
	} {
		if err := node.SetNodes(entries); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(node.Dir(), name), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(node.Dir(), name, "nodes.yaml"), read(t, nodesFile(node)))
	}
	point := func(to string) {
		t.Helper()
		if err := os.Symlink(to, current+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(current+".new", current); err != nil {
			t.Fatal(err)
		}
	}
	point("alone")
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, list := range []struct {
		name  string
		peers int
	}{{"both", 1}, {"alone", 0}} {
		point(list.name)
		hangUp(t, node)
		eventually(t, "the list to be active", func() error {
			if peers := report(t, node).Peers; len(peers) != list.peers {
				return fmt.Errorf("there are %d peers", len(peers))
			}
			return nil
		})
	}
}

func TestAHangupWithAnUnchangedListChangesNothing(t *testing.T) {
	t.Parallel()
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2})
	node := cluster.Nodes()[0]
	addPod(t, node, "a")
	state := func() string {
		described, err := os.Stat(filepath.Join(node.RunDir(), nodefile.Name))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintln(network(t, node.Namespace), logs(t, node), described.ModTime(), report(t, node).State)
	}
	before := state()
	for range 5 {
		hangUp(t, node)
		time.Sleep(10 * time.Millisecond)
	}
	// The list is rewritten too, with the same content.
	if err := cluster.Publish(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // weftd reads a changed file 100 ms later
	expectSame(t, "the node", before, state())

	// An invalid list shows that weftd has received the hangups: it logs the rejection once
	// for each.
	write(t, nodesFile(node), "nodes: []\n")
	eventuallyCurrent(t, node, "0", "1")
	hangUp(t, node)
	eventuallyCurrent(t, node, "0", "2")
}

func TestBrokenListLeavesTheLastGoodOne(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node := cluster.Nodes()[0]
	good, before := read(t, nodesFile(node)), network(t, node.Namespace)
	total := 0
	for _, tt := range []struct{ name, list, reason string }{
		{"a file that is half written", good[:len(good)/2] + "[", nodesFile(node) + ":"},
		{"an empty file", "", "nodes: missing; list the cluster's nodes under it"},
		{"a list without nodes", "nodes: []\n", `this node, "node1", is not in the list of nodes, which is empty`},
		{"a list without this node", strings.ReplaceAll(good, "name: node1", "name: node9"), `this node, "node1", is not in the list of nodes`},
		{"two nodes with one range", strings.ReplaceAll(good, "10.244.2.0/24", "10.244.1.0/25"), "pod CIDR 10.244.1.0/25 overlaps 10.244.1.0/24 of node node1"},
		{"several mistakes", strings.NewReplacer("10.244.2.0/24", "10.244.2.1/24", "192.168.77.2:9338", "nowhere").Replace(good), `"nowhere" is not an IP address and port`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			write(t, nodesFile(node), tt.list)
			total++
			eventuallyCurrent(t, node, "0", fmt.Sprint(total))
			expectSame(t, "the node's network", before, network(t, node.Namespace))
			expectPings(t, pod1, pod2)

			shown := weft(t, node, "status")
			if shown.status != 0 || !strings.Contains(shown.stdout, "NOT UP TO DATE: ") || !strings.Contains(shown.stdout, tt.reason) {
				t.Errorf("weft status does not report %s:\n%s%s", tt.reason, shown.stdout, shown.stderr)
			}
			var r status.Report
			if err := json.Unmarshal([]byte(weft(t, node, "status", "-o", "json").stdout), &r); err != nil || !r.Ready || !strings.Contains(r.State.Rejected, tt.reason) {
				t.Errorf("weft status -o json: ready %v, rejected %q, %v", r.Ready, r.State.Rejected, err)
			}
			eventuallyLogs(t, node, total, "level=ERROR", `msg="node list rejected"`)
			eventuallyLogs(t, node, 1, `msg="node list rejected"`, tt.reason)
			if _, err := node.Get(t.Context(), "/healthz"); err != nil {
				t.Errorf("the node itself is as it must be: %v", err)
			}

			write(t, nodesFile(node), good)
			eventuallyCurrent(t, node, "1", fmt.Sprint(total))
			if got := report(t, node).State.Rejected; got != "" {
				t.Errorf("the list is good again, but weft status says: %s", got)
			}
			eventuallyLogs(t, node, total, "level=INFO", `msg="node list accepted again"`)
		})
	}
}

// eventuallyLogs waits until the log has at least so many lines with all of the words: weftd
// logs what its status shows already.
func eventuallyLogs(t *testing.T, node *testnet.Node, lines int, words ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d lines of the log with %q", lines, words), func() error {
		found, log := 0, logs(t, node)
		for line := range strings.Lines(log) {
			plain := strings.ReplaceAll(line, `\"`, `"`)
			if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(plain, w) }) {
				found++
			}
		}
		if found < lines {
			return fmt.Errorf("%d of them:\n%s", found, log)
		}
		return nil
	})
}
