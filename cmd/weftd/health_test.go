package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/status"
	"weft/internal/testnet"
)

// eventuallyAnswers waits until /healthz and /readyz say 503 with the reason, or 200
// if there is none.
func eventuallyAnswers(t *testing.T, node *testnet.Node, reason string) {
	t.Helper()
	for _, path := range []string{"/healthz", "/readyz"} {
		eventually(t, path+" to say: "+reason, func() error {
			body, err := node.Get(t.Context(), path)
			switch {
			case reason == "":
				return err // what /healthz says otherwise is tested without a node
			case err == nil:
				return fmt.Errorf("it says %q", body)
			case !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), reason):
				return err
			}
			return nil
		})
	}
}

func TestHealthReportsAConflictingRoute(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node := cluster.Nodes()[0]
	eventuallyAnswers(t, node, "")
	before := ours(t, node.Namespace)

	run(t, node.Namespace, "ip", "route", "replace", "10.244.2.0/24", "via", "192.168.77.254")
	replaced := time.Now()
	eventuallyAnswers(t, node, "the route to 10.244.2.0/24 (table 254) is taken by another program's: "+
		"10.244.2.0/24 via 192.168.77.254 dev eth0 proto boot metric 0; remove it or change the CIDR")
	t.Logf("noticed after %v", time.Since(replaced).Round(time.Millisecond))
	if got := metric(t, node, "weft_ready"); got != "0" {
		t.Errorf("weft_ready is %s", got)
	}
	if shown := weft(t, node, "status"); shown.status != 0 || !strings.Contains(shown.stdout, "node1, NOT READY: the route to 10.244.2.0/24") {
		t.Errorf("weft status does not report the route:\n%s", shown.stdout)
	}
	expectPingsOf(t, true, pod1, pod2) // what is not in the way goes on

	run(t, node.Namespace, "ip", "route", "del", "10.244.2.0/24", "via", "192.168.77.254")
	removed := time.Now()
	eventuallyAnswers(t, node, "")
	t.Logf("repaired after %v", time.Since(removed).Round(time.Millisecond))
	expectSame(t, "what weftd owns", before, ours(t, node.Namespace))
	expectPings(t, pod1, pod2)
}

func TestWhatAnotherProgramFlushesComesBack(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node := cluster.Nodes()[0]
	owned := func() string { return ours(t, node.Namespace) + forwarding(t, node.Namespace) }
	before := owned()
	run(t, node.Namespace, "sh", "-ec", `
		ip -4 route flush table all proto 93
		ip -6 route flush table all proto 93
		for pref in 5180 5181 5182; do
			ip -4 rule del pref $pref
			ip -6 rule del pref $pref
		done
		ip addr flush dev weft0
		ip link set weft0 mtu 1300
		ip link set weft0 down
		sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0
		nft flush ruleset`)
	flushed := time.Now()
	eventually(t, "what weftd owns to be back", func() error {
		if now := owned(); now != before {
			return fmt.Errorf("before:\n%s\nnow:\n%s", before, now)
		}
		return nil
	})
	t.Logf("back after %v", time.Since(flushed).Round(time.Millisecond))
	expectPings(t, pod1, pod2)
	eventuallyAnswers(t, node, "")
}

func TestWeftdEndsWhenItsDeviceIsDeleted(t *testing.T) {
	t.Parallel()
	node := newCluster(t, testnet.ClusterOptions{Nodes: 2}).Nodes()[0]
	before := network(t, node.Namespace)
	wait := begin(t, weftd(t, node, nil))
	if err := node.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, node.Namespace, "ip", "link", "del", "weft0")
	if got := wait(); got.status != 1 || !strings.Contains(got.stderr, "weftd: lane ") {
		t.Errorf("exit status %d: %s", got.status, got.stderr)
	}
	expectSame(t, "the node's network after a teardown", before, torn(t, node))
	if exists(node.Socket()) {
		t.Error("the socket is left")
	}
}

func TestStatusShowsARunningNode(t *testing.T) {
	t.Parallel()
	began := time.Now()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node := cluster.Nodes()[0]
	expectPings(t, pod1, pod2)

	text := weft(t, node, "status")
	if text.status != 0 || text.stderr != "" {
		t.Fatalf("exit status %d: %s", text.status, text.stderr)
	}
	for _, want := range []string{
		"node           node1, ready\n",
		"pod CIDRs      10.244.1.0/24, fd00:244:1::/64\n",
		"datagrams      sealed on 0.0.0.0:9338\n",
		"TUN            weft0, MTU 1440, driver superpacket, ",
		"list of nodes  " + nodesFile(node) + ", applied ",
		"outbound       4 packets, 376 B\n", // two echo requests and two replies, of 84 and 104 bytes
		"inbound        4 packets, 376 B\n",
		"host network   routes, rules and addresses are there\n",
		"guard table    it is there\n",
		"conflist       it is written\n",
		"of 253 IPv4 addresses leased (0 %)\n",
		"  10.244.2.0/24, fd00:244:2::/64, 192.168.77.2/32\n",
	} {
		if !strings.Contains(text.stdout, want) {
			t.Errorf("no %q in:\n%s", want, text.stdout)
		}
	}

	var r status.Report
	if err := json.Unmarshal([]byte(weft(t, node, "status", "-o", "json").stdout), &r); err != nil {
		t.Fatal(err)
	}
	if r.Node != "node1" || !r.Ready || r.TUN.MTU != 1440 || len(r.Peers) != 1 || r.Outbound.Packets != 4 || r.State.Applied.Before(began) {
		t.Errorf("weft status -o json: %+v", r)
	}
}

func TestStatusWithoutPeersHasNoNulls(t *testing.T) {
	t.Parallel()
	node := startCluster(t, testnet.ClusterOptions{Nodes: 1}).Nodes()[0]
	if got := weft(t, node, "status", "-o", "json").stdout; strings.Contains(got, "null") {
		t.Errorf("weft status -o json:\n%s", got)
	}
}

func TestStatusSaysWhatIsTheMatterWhenItCannotAsk(t *testing.T) {
	t.Parallel()
	node := startCluster(t, testnet.ClusterOptions{Nodes: 1}).Nodes()[0]
	nobody := finish(t, node.Command(t.Context(), "setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all",
		everybodys(t, "weft"), "--socket", node.Socket(), "status"))
	if want := "weft: not allowed to open " + node.Socket() + ": run as root\n"; nobody.status != 1 || nobody.stderr != want {
		t.Errorf("as nobody: exit status %d, %q; want 1, %q", nobody.status, nobody.stderr, want)
	}

	gone := "weft: no weftd answers at " + node.Socket() + "; is it running (systemctl status weftd), and is its runDir another (--socket)?\n"
	node.Kill() // leaves the socket
	if got := weft(t, node, "status"); got.status != 1 || got.stderr != gone {
		t.Errorf("after a crash: exit status %d, %q; want 1, %q", got.status, got.stderr, gone)
	}
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := node.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := weft(t, node, "status"); got.status != 1 || got.stderr != gone {
		t.Errorf("after a stop: exit status %d, %q; want 1, %q", got.status, got.stderr, gone)
	}
}

// The guard stays meanwhile.
func TestConflictingRouteDelaysReadiness(t *testing.T) {
	t.Parallel()
	cluster := newCluster(t, testnet.ClusterOptions{Nodes: 2})
	node, other := cluster.Nodes()[0], cluster.Nodes()[1]
	if err := other.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, node.Namespace, "ip", "route", "add", "10.244.2.0/24", "via", "192.168.77.254")
	ctx, cancel := context.WithTimeout(t.Context(), testnet.WaitLimit)
	defer cancel()
	w := watch(t, node, func(string) {})
	started := make(chan error, 1)
	go func() { started <- node.Start(ctx) }()
	eventuallyAnswers(t, node, "the route to 10.244.2.0/24 (table 254) is taken by another program's: "+
		"10.244.2.0/24 via 192.168.77.254 dev eth0 proto boot metric 0; remove it or change the CIDR")
	run(t, node.Namespace, "nft", "list", "table", "inet", "weft")
	if seen := slices.DeleteFunc(w.stop(), func(s string) bool { return s == "node.json CREATE" }); len(seen) > 0 {
		t.Errorf("what a runtime would take for a working node: %v", seen)
	}

	run(t, node.Namespace, "ip", "route", "del", "10.244.2.0/24", "via", "192.168.77.254")
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	expectPings(t, addPod(t, node, "a"), addPod(t, other, "b"))
}

// TestUnwritableConflistLeavesPods: only new pods need it.
func TestUnwritableConflistLeavesPods(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node := cluster.Nodes()[0]
	if err := node.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(conflist(node)); err != nil {
		t.Fatal(err)
	}
	cmd := weftd(t, node, mounted("-t tmpfs -o ro none "+filepath.Dir(conflist(node))))
	wait := begin(t, cmd)
	eventually(t, "/readyz to report the conflist", func() error {
		if _, err := node.Get(t.Context(), "/readyz"); err == nil || !strings.Contains(err.Error(), "write the conflist: ") {
			return fmt.Errorf("it says %w", err)
		}
		return nil
	})
	expectPings(t, pod1, pod2)
	if shown := weft(t, node, "status"); !strings.Contains(shown.stdout, "NOT READY: write the conflist: ") {
		t.Errorf("weft status does not report the conflist:\n%s", shown.stdout)
	}

	run(t, node.Namespace, "nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", cmd.Process.Pid), "umount", "--lazy", filepath.Dir(conflist(node)))
	eventuallyAnswers(t, node, "")
	if !exists(conflist(node)) {
		t.Error("weftd says that it is ready before the conflist is there")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := wait(); got.status != 0 {
		t.Errorf("exit status %d: %s", got.status, got.stderr)
	}
}

// TestHostIsRepairedWithoutUnderlay: without the node's address, weftd can't read the
// underlay's MTU, and uses the last one.
func TestHostIsRepairedWithoutUnderlay(t *testing.T) {
	t.Parallel()
	node := startCluster(t, testnet.ClusterOptions{Nodes: 2}).Nodes()[0]
	before := ours(t, node.Namespace)
	run(t, node.Namespace, "ip", "address", "flush", "dev", testnet.UnderlayLink)
	eventuallyAnswers(t, node, "no interface has the address 192.168.77.1 or a default route")
	run(t, node.Namespace, "sh", "-ec", "nft delete table inet weft; ip -4 route flush table all proto 93")
	eventually(t, "what weftd owns to be back", func() error {
		if now := ours(t, node.Namespace); now != before {
			return fmt.Errorf("before:\n%s\nnow:\n%s", before, now)
		}
		return nil
	})
	if mtu := report(t, node).TUN.MTU; mtu < 1280 {
		t.Errorf("weft status shows an MTU of %d", mtu)
	}
	run(t, node.Namespace, "ip", "address", "add", "192.168.77.1/24", "dev", testnet.UnderlayLink)
	eventuallyAnswers(t, node, "")
}

func TestPageIsServedUnlessItIsOff(t *testing.T) {
	t.Parallel()
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Configure: func(weft map[string]any) {
		if weft["node"] == "node2" {
			weft["metrics"].(map[string]any)["page"] = "off"
		}
	}})
	node1, node2 := cluster.Nodes()[0], cluster.Nodes()[1]
	page, err := node1.Get(t.Context(), "/")
	if err != nil || !strings.Contains(page, "<h1>node1</h1>") || !strings.Contains(page, "192.168.77.2:9338") {
		t.Errorf("the page of node1: %v\n%s", err, page)
	}
	if _, err := node2.Get(t.Context(), "/"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("the page that is off: %v", err)
	}
}

// TestIdleConnectionsAreBounded: a local user opens as many connections as it can, and leaves them.
func TestIdleConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 1})
	node := cluster.Nodes()[0]
	before := metric(t, node, "process_open_fds")
	var idle []net.Conn
	for range 100 {
		conn, err := node.Dial(t.Context(), "tcp", "127.0.0.1:9339")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		idle = append(idle, conn)
	}
	eventually(t, "the metrics are served beside them", func() error {
		metrics, err := node.Metrics(t.Context())
		if err != nil {
			return err
		}
		now, _ := strconv.Atoi(metrics["process_open_fds"])
		if was, _ := strconv.Atoi(before); now > was+80 {
			return fmt.Errorf("weftd has %d descriptors, and had %d", now, was)
		}
		return nil
	})
	for i, conn := range idle { // each is answered in its turn, and closed
		_ = conn.SetReadDeadline(time.Now().Add(testnet.WaitLimit))
		if _, err := io.ReadAll(conn); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
}
