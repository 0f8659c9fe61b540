package main_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/testnet"
)

// traffic is what passes between two pods while their node's weftd is replaced: a ping every 10 ms,
// a datagram every 5 ms, and a TCP connection. The device has room for what comes in seconds, so
// nothing may be lost on a busy machine either.
type traffic struct {
	ping     *exec.Cmd
	pinged   bytes.Buffer
	done     chan error
	numbers  *stream
	exchange *exchange
	sender   *testnet.Pod
}

func startTraffic(t *testing.T, from, to *testnet.Pod) *traffic {
	t.Helper()
	expectPings(t, from, to)
	tr := &traffic{numbers: startStream(t, from, to, 5*time.Millisecond), exchange: startExchange(t, from.Namespace, to.Namespace, addrOf(t, to, false)), done: make(chan error, 1), sender: from}
	tr.ping = from.Command(t.Context(), "ping", "-n", "-q", "-i", "0.01", "-c", "1000", addrOf(t, to, true).String())
	tr.ping.Stdout = &tr.pinged
	if err := tr.ping.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { tr.done <- tr.ping.Wait() }()
	return tr
}

// passes reports whether the pings have not ended yet.
func (tr *traffic) passes() bool {
	select {
	case err := <-tr.done:
		tr.done <- err
		return false
	default:
		return true
	}
}

// expectNoLoss fails if one of them was lost, or came twice.
func (tr *traffic) expectNoLoss(t *testing.T) {
	t.Helper()
	err := <-tr.done
	counts := regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`).FindStringSubmatch(tr.pinged.String())
	if err != nil || counts == nil || counts[1] != counts[2] || strings.Contains(tr.pinged.String(), "duplicates") {
		t.Errorf("ping ends with %v:\n%s", err, tr.pinged.String())
	}
	sent, lost, again := tr.numbers.end()
	if lost > 0 || again > 0 {
		t.Errorf("of %d datagrams %d were lost, and %d came more than once", sent, lost, again)
	}
	gap := tr.exchange.stop(t)
	t.Logf("%s of %s pings, %d of %d datagrams; the longest time between two answers over TCP: %v; %s", counts[2], counts[1], sent-lost, sent, gap.Round(time.Millisecond),
		strings.TrimSpace(run(t, tr.sender.Namespace, "sh", "-c", "nstat -asz TcpExtTCPTimeouts | tail -1")))
}

// TestTakeoverLosesNothing: weftd hands over to the next one, again and again, at the sending and
// at the receiving node.
func TestTakeoverLosesNothing(t *testing.T) {
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	before := ours(t, cluster.Nodes()[0].Namespace)
	tr := startTraffic(t, pod1, pod2)
	n := 0
	for ; tr.passes() || n < 2; n++ {
		if n%4 == 3 { // the next one is to meet a handshake, which begins a second after a hand-over
			time.Sleep(700*time.Millisecond + rand.N(400*time.Millisecond))
		}
		if err := cluster.Nodes()[n%2].TakeOver(t.Context(), "--takeover"); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d hand-overs", n)
	tr.expectNoLoss(t)
	expectCountersGoOn(t, cluster.Nodes()...)
	expectSame(t, "what weftd owns", before, ours(t, cluster.Nodes()[0].Namespace))
	for _, node := range cluster.Nodes() {
		for _, want := range []string{"data path handed over", "data path taken over", "keys taken over"} {
			if !strings.Contains(logs(t, node), want) {
				t.Errorf("%s has no %q in its log:\n%s", node.Name(), want, logs(t, node))
			}
		}
	}
}

// expectCountersGoOn fails unless each node has counted what startTraffic sent, through all its weftds,
// and no drops.
func expectCountersGoOn(t *testing.T, nodes ...*testnet.Node) {
	t.Helper()
	const least = 1000 // pings, or their answers; one weftd of dozens saw a small part of them
	for _, node := range nodes {
		metrics, err := node.Metrics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, direction := range []string{"outbound", "inbound"} {
			if n, err := strconv.ParseFloat(metrics[fmt.Sprintf("weft_packets_total{direction=%q}", direction)], 64); err != nil || n < least {
				t.Errorf("%s has counted %v packets %s, want %d at least (%v)", node.Name(), n, direction, least, err)
			}
		}
		for name, n := range metrics {
			if strings.HasPrefix(name, "weft_drops_total{") && n != "0" {
				t.Errorf("%s: %s is %s", node.Name(), name, n)
			}
		}
	}
}

// TestTakeoverOfAnother: a weftd that can't go on with the data path of the one that runs starts as
// if that had been stopped.
func TestTakeoverOfAnother(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node := cluster.Nodes()[0]
	for _, other := range []struct{ flag, reason string }{
		{"--tun-lanes=1", "tun.lanes is 2 there and 1 here"},
		{"--tun-driver=water", "tun.driver is superpacket there and water here"},
	} {
		if err := node.TakeOver(t.Context(), "--takeover", other.flag); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"nothing handed over, another weftd starts", "nothing handed over, ordinary start"} {
			if log := logs(t, node); !strings.Contains(log, want) {
				t.Errorf("%s: no %q in the log:\n%s", other.flag, want, log)
			}
		}
		expectPings(t, pod1, pod2)
		if err := node.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTakeoverOfNobody: with no weftd to take over from, or one that was killed, --takeover is an
// ordinary start.
func TestTakeoverOfNobody(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node := cluster.Nodes()[0]
	node.Kill()
	next := weftd(t, node, nil, "--takeover")
	wait := begin(t, next)
	expectPings(t, pod1, pod2)
	if got := weft(t, node, "status"); !strings.Contains(got.stdout, "ready") {
		t.Errorf("weft status: %s%s", got.stdout, got.stderr)
	}
	// A second ordinary weftd is refused.
	if got := finish(t, weftd(t, node, nil)); got.status != 1 || !strings.Contains(got.stderr, "a weftd runs already") {
		t.Errorf("a second one: exit status %d, %s", got.status, got.stderr)
	}
	if err := next.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := wait(); got.status != 0 || !strings.Contains(got.stderr, "no weftd to take over from, ordinary start") {
		t.Errorf("exit status %d: %s", got.status, got.stderr)
	}
}

// TestTakeoverIsKilled: whenever the next weftd dies, the one that runs goes on, or has ended and
// left a guarded node.
func TestTakeoverIsKilled(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node, wentOn := cluster.Nodes()[0], 0
	for range testnet.Sampled(8, 40) {
		next := weftd(t, node, nil, "--takeover")
		wait := begin(t, next)
		time.Sleep(rand.N(120 * time.Millisecond))
		_ = next.Process.Kill()
		wait()
		eventually(t, "pings, or the end of the weftd before", func() error {
			if node.Crashed() != nil {
				return nil
			}
			return pings(t, pod1.Namespace, addrOf(t, pod2, false))
		})
		if node.Crashed() == nil {
			wentOn++
			continue
		}
		if err := node.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the one before went on %d times", wentOn)
	expectPings(t, pod1, pod2)
	for _, n := range cluster.Nodes() {
		for _, reason := range []string{"replayed", "not_authentic"} {
			if got := metric(t, n, fmt.Sprintf("weft_drops_total{reason=%q}", reason)); got != "0" {
				t.Errorf("%s has dropped %s datagrams as %s", n.Name(), got, reason)
			}
		}
	}
	left, err := filepath.Glob(filepath.Join(node.RunDir(), "handover-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("tickets are left: %v, %v", left, err)
	}
}

// TestTakeoverKnowsTheNewestNode: a weftd that takes over shortly after a node has joined goes on with that
// node, though the snapshot was older.
func TestTakeoverKnowsTheNewestNode(t *testing.T) {
	t.Parallel()
	c := startEtcdCluster(t, 1, testnet.EtcdOptions{Members: 1})
	node1 := c.Nodes()[0]
	pod1 := addPod(t, node1, "a")
	for range 3 { // one of them before the snapshot is written again by the clock
		node := c.join(t, pod1)
		pod := addPod(t, node, "on-"+node.Entry().Name)
		expectPings(t, pod1, pod)
		if err := node1.TakeOver(t.Context(), "--takeover"); err != nil {
			t.Fatal(err)
		}
		if err := pings(t, pod1.Namespace, addrOf(t, pod, false)); err != nil {
			t.Errorf("the first packet after a hand-over: %v", err)
		}
	}
	if got := metric(t, node1, `weft_drops_total{reason="no_route"}`); got != "0" {
		t.Errorf("%s packets were dropped as no_route", got)
	}
}
