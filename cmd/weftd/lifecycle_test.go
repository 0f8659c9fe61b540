package main_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/nodefile"
	"weft/internal/testnet"
)

// podsOnTwoNodes starts two nodes as they are installed, with a pod on each.
func podsOnTwoNodes(t *testing.T) (cluster *testnet.Cluster, pod1, pod2 *testnet.Pod) {
	t.Helper()
	cluster = startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true})
	return cluster, addPod(t, cluster.Nodes()[0], "a"), addPod(t, cluster.Nodes()[1], "b")
}

// wiring is what belongs to the pods of a node, and not to weftd.
func wiring(t *testing.T, node *testnet.Node) string {
	t.Helper()
	return run(t, node.Namespace, "sh", "-c", `
		ip -br link show group 93
		ip -4 route show table all proto 94
		ip -6 route show table all proto 94`) + files(t, filepath.Join(node.Dir(), "state"))
}

// protection is what keeps pods' packets in the overlay: what weftd owns in the kernel but for
// its device and what leads there.
func protection(t *testing.T, at *testnet.Namespace) string {
	t.Helper()
	return run(t, at, "sh", "-c", `
		for family in -4 -6; do
			ip $family route show table all proto 93 type unreachable
			ip $family rule show | grep 93
		done
		`+listGuard+`
		nft --stateless list table bridge weft`)
}

// TestStopKeepsProtection: weftd's end, however it comes, takes away nothing that protects pods. A
// stop takes away the device, a crash doesn't. New pods are protected too, so they may be added, and are connected by
// the next start.
func TestStopKeepsProtection(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node := cluster.Nodes()[0]
	before, wired, protected := ours(t, node.Namespace), wiring(t, node), protection(t, node.Namespace)
	if strings.Count(wired, pod1.Addrs[0].String()) < 2 || !strings.Contains(protected, "unreachable 10.244.0.0/16") {
		t.Fatalf("neither a route nor a lease of %v, or no protection, in:\n%s\n%s", pod1.Addrs, wired, protected)
	}
	for _, end := range []struct {
		name string
		left bool // the device
		end  func()
	}{
		{"SIGTERM", false, func() {
			if err := node.Stop(t.Context()); err != nil { // which fails if the exit status is not 0
				t.Error(err)
			}
			if exists(node.Socket()) {
				t.Error("SIGTERM: the socket is left")
			}
		}},
		{"SIGKILL", true, node.Kill},
		{"its device is deleted", false, func() {
			run(t, node.Namespace, "ip", "link", "del", testnet.TUNName)
			eventually(t, "weftd to end", func() error {
				if node.Crashed() == nil {
					return errors.New("it runs")
				}
				return nil
			})
			node.Kill()
		}},
	} {
		end.end()
		if left := run(t, node.Namespace, "ip", "-br", "link"); strings.Contains(left, testnet.TUNName) != end.left {
			t.Errorf("after %s there are the devices\n%s", end.name, left)
		}
		expectSame(t, "what protects pods, after "+end.name, protected, protection(t, node.Namespace))
		expectSame(t, "the pods' wiring, after "+end.name, wired, wiring(t, node))
		if err := node.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		expectSame(t, "what weftd owns, after "+end.name, before, ours(t, node.Namespace))
		expectPings(t, pod1, pod2)
	}
}

// TestTeardownRemovesAll: only `weft teardown` removes what protects pods. It refuses while
// weftd or pods run, unless a flag demands it.
func TestTeardownRemovesAll(t *testing.T) {
	t.Parallel()
	cluster := newCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true})
	node := cluster.Nodes()[0]
	clean := network(t, node.Namespace)
	if err := os.WriteFile(filepath.Join(node.RunDir(), nodefile.ProvenName), []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := teardown(t, node); got.status != 1 || !strings.Contains(got.stderr, "a weftd runs already") || !strings.Contains(got.stderr, "systemctl stop weftd") {
		t.Errorf("while weftd runs: exit status %d, %s", got.status, got.stderr)
	}
	check := func(when, refused string) {
		t.Helper()
		before := network(t, node.Namespace)
		if got := teardown(t, node, "--check"); !strings.Contains(got.stderr, refused) || (got.status == 0) != (refused == "") {
			t.Errorf("check, %s: exit status %d, %s", when, got.status, got.stderr)
		}
		expectSame(t, "the node's network, by a check", before, network(t, node.Namespace))
	}
	check("no pod runs", "")
	addPod(t, node, "a")
	check("a pod runs", "1 pod still on this node")
	if err := node.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := network(t, node.Namespace)
	if got := teardown(t, node); got.status != 1 || !strings.Contains(got.stderr, "1 pod still on this node") || !strings.Contains(got.stderr, "--force") {
		t.Errorf("while a pod runs: exit status %d, %s", got.status, got.stderr)
	}
	expectSame(t, "the node's network", before, network(t, node.Namespace))
	if err := node.DeletePod(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	expectSame(t, "the node's network", clean, torn(t, node))
	for _, path := range []string{conflist(node), filepath.Join(node.RunDir(), nodefile.Name), filepath.Join(node.RunDir(), nodefile.ForwardingName), filepath.Join(node.RunDir(), nodefile.ProvenName)} {
		if exists(path) {
			t.Errorf("%s is left", path)
		}
	}
	expectSame(t, "the node's network, after a second time", clean, torn(t, node))

	// By force while a pod runs, which is named.
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	addPod(t, node, "b")
	node.Kill() // so the device is left
	if got := teardown(t, node, "--force", "-o", "json"); got.status != 0 || !strings.Contains(got.stdout, `"exposed": [`+"\n    \"") {
		t.Errorf("by force: exit status %d, %s%s", got.status, got.stdout, got.stderr)
	}
	if left := run(t, node.Namespace, "ip", "-br", "link"); strings.Contains(left, testnet.TUNName) {
		t.Errorf("by force: the device is left:\n%s", left)
	}
	check("a pod runs that nothing protects any more", "")
}

func TestConnectionsSurviveRestart(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node := cluster.Nodes()[0]
	before := ours(t, node.Namespace)
	connections := map[string]*exchange{}
	for family, v6 := range families {
		connections[family] = startExchange(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, v6))
		connections[family].firstAfter(t, time.Now())
	}
	for _, way := range []struct {
		name string
		end  func()
	}{
		{"kill -9", func() {
			node.Kill()
			expectGuarded(t, cluster.Outside, node, addrOf(t, pod1, false))
		}},
		{"a stop", func() {
			if err := node.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		began := time.Now()
		way.end()
		if err := node.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		ready := timeOfLast(t, node, "msg=forwarding")
		for family, connection := range connections {
			goesOn := connection.firstAfter(t, ready)
			gap := goesOn.Sub(ready)
			t.Logf("%s: the connection over %s went on %v after weftd was ready again, and %v after %s began",
				way.name, family, gap.Round(time.Millisecond), goesOn.Sub(began).Round(time.Millisecond), way.name)
		}
		expectSame(t, "what weftd owns", before, ours(t, node.Namespace))
	}
	for _, connection := range connections {
		connection.stop(t)
	}
	expectPings(t, pod1, pod2)
}

// expectGuarded fails unless the guard table drops a non-peer's bare packet to a pod.
func expectGuarded(t *testing.T, stranger *testnet.Namespace, node *testnet.Node, pod netip.Addr) {
	t.Helper()
	count := func() string { return run(t, node.Namespace, "nft", "list", "counter", "inet", "weft", "bare_to_pod") }
	before := count()
	run(t, stranger, "ip", "route", "replace", pod.String(), "via", node.Entry().Endpoint.Addr().String())
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if conn, err := stranger.Dial(ctx, "tcp", net.JoinHostPort(pod.String(), exchangePort)); err == nil {
		conn.Close()
		t.Error("a non-peer reaches a pod")
	}
	eventually(t, "the guard table to count the bare packet", func() error {
		if count() == before {
			return errors.New(before)
		}
		return nil
	})
}

// timeOfLast is when weftd logged its last line with text.
func timeOfLast(t *testing.T, node *testnet.Node, text string) time.Time {
	t.Helper()
	log := logs(t, node)
	head, _, found := cutLast(log, text)
	if !found {
		t.Fatalf("no %q in the log:\n%s", text, log)
	}
	_, stamp, _ := cutLast(head, "time=")
	stamp, _, _ = strings.Cut(stamp, " ")
	at, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+len(sep):], true
}

// moments are chosen to fall before, into and behind what weftd does to the host
// at its start, which takes some 50 ms.
var moments = []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond, 60 * time.Millisecond}

// beginUntil starts weftd, and returns at a moment after it has made its device.
func beginUntil(t *testing.T, node *testnet.Node, moment time.Duration) (process *os.Process, wait func() outcome) {
	t.Helper()
	cmd := weftd(t, node, nil)
	wait = begin(t, cmd)
	eventually(t, "the device", func() error {
		return node.Do(func() error {
			_, err := net.InterfaceByName(testnet.TUNName)
			return err
		})
	})
	time.Sleep(moment)
	return cmd.Process, wait
}

// TestExitStatusOfACrash: weftd ends by a signal after a panic. Go's own status is 2, as after
// a mistake in the configuration, and systemd would not start weftd again. SIGQUIT has Go
// end as after a panic.
func TestExitStatusOfACrash(t *testing.T) {
	t.Parallel()
	node := newCluster(t, testnet.ClusterOptions{Nodes: 1}).Nodes()[0]
	cmd := weftd(t, node, nil)
	wait := begin(t, cmd)
	eventually(t, "weftd to be ready", func() error {
		_, err := node.Get(t.Context(), "/readyz")
		return err
	})
	if err := cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	if got := wait(); got.status != -1 || !strings.Contains(got.stderr, "goroutine 1 ") {
		t.Errorf("exit status %d and not a signal:\n%s", got.status, got.stderr)
	}
}

func TestStopDuringStartLeavesNothing(t *testing.T) {
	t.Parallel()
	node := newCluster(t, testnet.ClusterOptions{Nodes: 2}).Nodes()[0]
	before := network(t, node.Namespace)
	for _, moment := range moments {
		process, wait := beginUntil(t, node, moment)
		_ = process.Signal(syscall.SIGTERM)
		if got := wait(); got.status != 0 || strings.Contains(got.stderr, "weftd:") {
			t.Errorf("%v after the device: exit status %d, %s", moment, got.status, got.stderr)
		}
		expectSame(t, "the node's network after a teardown", before, torn(t, node))
		if exists(node.Socket()) {
			t.Errorf("%v after the device: the socket is left", moment)
		}
	}
}

func TestStartAfterCrashDuringStart(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node := cluster.Nodes()[0]
	whole := ours(t, node.Namespace)
	if err := node.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, moment := range moments {
		process, wait := beginUntil(t, node, moment)
		_ = process.Kill()
		wait()
	}
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectSame(t, "what weftd owns", whole, ours(t, node.Namespace))
	expectPings(t, pod1, pod2)
}

func TestHangupDuringStartOrStopIsIgnored(t *testing.T) {
	t.Parallel()
	node := newCluster(t, testnet.ClusterOptions{Nodes: 2}).Nodes()[0]
	before := network(t, node.Namespace)
	for _, moment := range moments {
		process, wait := beginUntil(t, node, moment)
		_ = process.Signal(syscall.SIGHUP)
		if err := node.WaitReady(t.Context()); err != nil {
			t.Fatalf("SIGHUP %v after the device: %v", moment, err)
		}
		_ = process.Signal(syscall.SIGTERM)
		time.Sleep(moment / 4)
		_ = process.Signal(syscall.SIGHUP)
		if got := wait(); got.status != 0 {
			t.Errorf("SIGHUP %v after SIGTERM: exit status %d, %s", moment/4, got.status, got.stderr)
		}
		expectSame(t, "the node's network after a teardown", before, torn(t, node))
	}
}

func TestANodeJoinsAndLeavesWhileOthersGoOn(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node1, node2 := cluster.Nodes()[0], cluster.Nodes()[1]
	alone, pid1, pid2 := ours(t, node1.Namespace), node1.PID(), node2.PID()
	connection := startExchange(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, true))

	node3, err := cluster.AddNode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.Publish(); err != nil {
		t.Fatal(err)
	}
	if err := node3.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventuallyPeers(t, 2, node1, node2)
	pod3 := addPod(t, node3, "c")
	expectPings(t, pod1, pod2, pod3)
	if routes := ours(t, node1.Namespace); strings.Count(routes, "10.244.3.0/24 dev weft0") != 1 {
		t.Errorf("no route to the new node's pods:\n%s", routes)
	}

	if err := node3.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*testnet.Node{node1, node2} {
		if err := n.SetNodes([]testnet.NodeEntry{node1.Entry(), node2.Entry()}); err != nil {
			t.Fatal(err)
		}
	}
	eventuallyPeers(t, 1, node1, node2)
	eventually(t, "the routes to the node that left to go", func() error {
		if now := ours(t, node1.Namespace); now != alone {
			return fmt.Errorf("before the node joined:\n%s\nnow:\n%s", alone, now)
		}
		return nil
	})
	if err := pings(t, pod1.Namespace, addrOf(t, pod3, false)); err == nil {
		t.Error("a pod of the node that left answers")
	}
	pause := connection.stop(t)
	t.Logf("the longest pause of the others' connection was %v", pause.Round(time.Millisecond))
	expectPings(t, pod1, pod2)
	if node1.PID() != pid1 || node2.PID() != pid2 || node1.Crashed() != nil || node2.Crashed() != nil {
		t.Error("weftd was restarted")
	}
}

func eventuallyPeers(t *testing.T, want int, nodes ...*testnet.Node) {
	t.Helper()
	for _, n := range nodes {
		eventually(t, fmt.Sprintf("%d peers on %s", want, n.Name()), func() error {
			// Each node has two pod CIDRs and its own address.
			if peers, prefixes := metric(t, n, "weft_peers"), metric(t, n, "weft_fib_prefixes"); peers != fmt.Sprint(want) || prefixes != fmt.Sprint(3*(want+1)) {
				return fmt.Errorf("weft_peers is %s, weft_fib_prefixes %s", peers, prefixes)
			}
			return nil
		})
	}
}
