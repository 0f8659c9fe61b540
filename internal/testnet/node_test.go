package testnet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func newTestCluster(t *testing.T, o ClusterOptions) *Cluster {
	t.Helper()
	c, err := ForTest(t, Options{Prefix: testPrefix, BinDir: linkPrograms(t)}).NewCluster(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func startedNode(t *testing.T) *Node {
	t.Helper()
	c := newTestCluster(t, ClusterOptions{Nodes: 1})
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c.Nodes()[0]
}

func TestNodeStopsRestartsAndIsKilled(t *testing.T) {
	node := startedNode(t)
	first := node.PID()
	if err := node.Start(t.Context()); err == nil {
		t.Error("started twice")
	}
	if err := node.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := node.PID()
	if second == first {
		t.Error("the same process after Restart")
	}
	mustEnd(t, first)
	node.Kill()
	mustEnd(t, second)
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	logs, err := node.Logs()
	if err != nil || strings.Count(logs, "weftd is forwarding") != 3 {
		t.Errorf("logs %q, %v, want those of three runs", logs, err)
	}
	if err := node.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if node.PID() != 0 {
		t.Error("a stopped node has a process")
	}
}

func TestCrashIsNoStop(t *testing.T) {
	node := startedNode(t)
	if err := node.Crashed(); err != nil {
		t.Errorf("while it runs: %v", err)
	}
	process(node.PID()).kill()
	err := Wait(t.Context(), "the crash to be noticed", func(context.Context) error {
		if node.Crashed() == nil {
			return errors.New("not noticed")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	node.Kill()
	if err := node.Crashed(); err != nil {
		t.Errorf("after Kill: %v", err)
	}
}

func TestDaemonThatFailsShowsItsLog(t *testing.T) {
	c := newTestCluster(t, ClusterOptions{Nodes: 1, Configure: func(weft map[string]any) {
		weft["encapsulation"] = "smoke"
	}})

	err := c.Start(t.Context())

	if err == nil {
		t.Fatal("started")
	}
	for _, want := range []string{"node1", "exit status 2", `bad encapsulation "smoke"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %s", err, want)
		}
	}
	if strings.Contains(err.Error(), "deadline") {
		t.Errorf("waited for a daemon that had ended: %v", err)
	}
}

func TestPodIsWiredByThePluginInTheNodesNamespace(t *testing.T) {
	node := startedNode(t)
	id, err := identify(node.Path())
	if err != nil {
		t.Fatal(err)
	}
	pod, err := node.AddPod(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	want4, want6 := netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("fd00:244:1::5")
	if got4, _ := pod.Addr(false); got4 != want4 {
		t.Errorf("IPv4 address %v, want %v", got4, want4)
	}
	if got6, _ := pod.Addr(true); got6 != want6 {
		t.Errorf("IPv6 address %v, want %v", got6, want6)
	}
	if err := node.DeletePod(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	mustBeGone(t, pod.Path())
	for _, command := range []string{"ADD", "DEL"} {
		record, err := os.ReadFile(filepath.Join(node.RunDir(), command))
		if want := fmt.Sprintf("net:[%d] %s", id.inode, pod.Path()); err != nil || string(record) != want {
			t.Errorf("%s ran in %s, %v, want %s", command, record, err, want)
		}
	}
}

func TestPodThatCannotBeWiredLeavesNothing(t *testing.T) {
	node := startedNode(t)
	if err := os.WriteFile(filepath.Join(node.RunDir(), "full"), nil, 0o644); err != nil {
		t.Fatal(err)
	}

	_, err := node.AddPod(t.Context(), "web")

	if err == nil || !strings.Contains(err.Error(), "no address is free") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(node.RunDir(), "DEL")); err != nil {
		t.Errorf("the plugin was not asked to release anything: %v", err)
	}
	mustBeGone(t, filepath.Join(netnsDir, node.net.Name()+"-web"))
}

func TestClusterNodesReachEachOtherAndTheOutside(t *testing.T) {
	c := newTestCluster(t, ClusterOptions{Nodes: 2, Wire: Wire{Offloads: NoTunnel}})
	for _, addr := range []string{
		"192.168.77.2", "fd00:77::2", OutsideUnderlay4.String(), OutsideAddr4.String(), OutsideAddr6.String(),
	} {
		mustReach(t, c.Nodes()[0].Namespace, addr)
	}
}

func TestPublishGivesAllToEveryNode(t *testing.T) {
	c := newTestCluster(t, ClusterOptions{Nodes: 1, Underlay6: true})
	if _, err := c.AddNode(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(); err != nil {
		t.Fatal(err)
	}
	for _, node := range c.Nodes() {
		got, err := os.ReadFile(filepath.Join(node.Dir(), "nodes.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"name: node1", "name: node2", "[fd00:77::1]:9338", "10.244.2.0/24", "fd00:244:2::/64"} {
			if !strings.Contains(string(got), want) {
				t.Errorf("%s lacks %s:\n%s", node.Name(), want, got)
			}
		}
	}
}

func TestMetricsAreReadWithTheirLabels(t *testing.T) {
	got := parseMetrics(`# HELP weft_drops_total Packets and datagrams not handed on.
# TYPE weft_drops_total counter
weft_drops_total{reason="no route"} 3
weft_packets_total 1.5e+09
`)
	if want := map[string]string{`weft_drops_total{reason="no route"}`: "3", "weft_packets_total": "1.5e+09"}; !maps.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}
