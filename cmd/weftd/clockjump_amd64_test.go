package main_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"weft/internal/testnet"
)

const year = 365 * 24 * time.Hour

// dwell is how long a clock is left as it was set: weftd looks once a second whether
// something is due.
const dwell = 2500 * time.Millisecond

// agreements is how often the nodes have agreed on keys.
func agreements(t *testing.T, nodes ...*testnet.Node) (all []float64) {
	t.Helper()
	for _, n := range nodes {
		all = append(all, number(t, metric(t, n, `weft_handshakes_total{result="agreed"}`)))
	}
	return all
}

func TestSessionsLiveWhenTheClockJumpsByAYear(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := sealedPods(t)
	node, other := cluster.Nodes()[0], cluster.Nodes()[1]
	started := time.Now()
	expectPings(t, pod1, pod2) // the first keys
	clock := takeWallClock(t, node)

	numbers := startStream(t, pod1, pod2, time.Millisecond)
	connection := startExchange(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, true))
	for _, wrong := range []time.Duration{year, -year} {
		before := agreements(t, node, other)
		clock.set(t, wrong)
		time.Sleep(dwell)
		connection.firstAfter(t, time.Now())
		if after := agreements(t, node, other); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("the clock is wrong by %v: the nodes had agreed on keys %v times, and now %v", wrong, before, after)
		}
		// weftd reports times by the clock as it is now, so that weft shows how long ago they are.
		expectReported(t, "the keys began", shownPeer(t, node, "node2").KeysBegan, started, wrong)
		expectReported(t, "the list became active", report(t, node).State.Applied, started.Add(-time.Minute), wrong)

		for _, n := range []*testnet.Node{node, other} {
			if got := weft(t, n, "rotate-key"); got.status != 0 || got.stderr != "" {
				t.Errorf("the clock is wrong by %v: weft rotate-key on %s: %+v", wrong, n.Name(), got)
			}
		}
		eventually(t, "two rotations to be counted at both ends", func() error {
			if now := agreements(t, node, other); now[0] < before[0]+2 || now[1] < before[1]+2 {
				return fmt.Errorf("the nodes had agreed on keys %v times, and now %v", before, now)
			}
			return nil
		})
	}
	clock.set(t, 0)
	time.Sleep(dwell)

	sent, lost, again := numbers.end()
	pause := connection.stop(t) // fails if the connection was reset
	t.Logf("%d of %d datagrams were lost; the longest pause of the connection was %v", lost, sent, pause.Round(time.Millisecond))
	// A busy machine loses a few in the receiver's socket buffer.
	if lost*1000 > sent || again > 0 || sent < 1000 {
		t.Errorf("of %d datagrams %d were lost, and %d came more than once", sent, lost, again)
	}
	for _, n := range []*testnet.Node{node, other} {
		for _, reason := range []string{"no_keys", "unknown_index", "replayed", "not_authentic", "unknown_peer"} {
			if got := metric(t, n, fmt.Sprintf("weft_drops_total{reason=%q}", reason)); got != "0" {
				t.Errorf("%s has dropped %s datagrams as %s", n.Name(), got, reason)
			}
		}
		if err := n.Crashed(); err != nil {
			t.Error(err)
		}
	}
}

// expectReported fails unless weftd reports a time as a clock shows it that is wrong by so
// much: after a point in time, and not in the future.
func expectReported(t *testing.T, what string, reported, after time.Time, wrong time.Duration) {
	t.Helper()
	const rounding = time.Second
	if now := time.Now(); reported.Before(after.Add(wrong-rounding)) || reported.After(now.Add(wrong+rounding)) {
		t.Errorf("the clock is wrong by %v: at %v, %s at %v", wrong, now.Add(wrong), what, reported)
	}
}

func TestNodesWhoseClocksAreYearsApartAgreeOnKeys(t *testing.T) {
	t.Parallel()
	cluster := newCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true})
	node, fresh := cluster.Nodes()[0], cluster.Nodes()[1]
	began := time.Now()
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	clock := takeWallClock(t, node)
	clock.set(t, year)
	expectReported(t, "the list became active", report(t, node).State.Applied, began, year)
	pod1 := addPod(t, node, "a")
	absent := fresh.Entry().PodCIDRs[0].Addr().Next().Next()
	if err := pings(t, pod1.Namespace, absent); err == nil {
		t.Errorf("%v answers, and no node has it yet", absent)
	}
	eventually(t, "a handshake to fail", func() error {
		if metric(t, node, `weft_handshakes_total{result="failed"}`) == "0" {
			return errors.New("none has")
		}
		return nil
	})

	// The next packet is the first since then that asks for an attempt, which does not wait
	// for the year to come again.
	clock.set(t, -year)
	if err := fresh.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	pod2 := addPod(t, fresh, "b")
	expectAgreement := func(what string) {
		t.Helper()
		eventually(t, what+" to be reached", func() error {
			return pings(t, pod1.Namespace, addrOf(t, pod2, false))
		})
		expectPings(t, pod1, pod2)
	}
	expectAgreement("a fresh node from a year before it")

	clock.set(t, year)
	if err := fresh.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectAgreement("a restarted node from a year after it")
}

// TestAClockJumpIsNamed: pods don't notice it. If etcd's certificates have ended by the wrong clock, the
// first lines have both the effect and the cause.
func TestAClockJumpIsNamed(t *testing.T) {
	t.Parallel()
	c := startEtcdCluster(t, 1, testnet.EtcdOptions{Members: 1})
	node := c.Nodes()[0]
	clock := takeWallClock(t, node)
	restartEtcd := func(t *testing.T) {
		c.etcd.Kill(1)
		if err := c.etcd.Start(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	const forward, back = "the clock of this host was set forward by 17520h0m", "the clock of this host was set back by 8760h0m"
	jump := fault{
		name: "clock jump, forward", make: func(t *testing.T) { clock.set(t, 2*year) }, undo: func(t *testing.T) { clock.set(t, 0) },
		status: forward, doctor: "clock_jump: " + forward,
		metric: `weft_warnings{code="clock_jump"}`, value: "1", alert: "WeftWarning",
	}
	late := jump
	late.name = "clock jump, and the certificates have ended"
	late.status = "; set this host's clock if it is wrong (`weft doctor`); otherwise renew etcd's certificate\nWARNING        " + forward
	late.make = func(t *testing.T) {
		clock.set(t, 2*year)
		restartEtcd(t)
	}
	early := jump
	early.name, early.make, early.status, early.doctor = "clock jump, back", func(t *testing.T) { clock.set(t, -year) }, back, "clock_jump: "+back
	expectFaults(t, node, []fault{jump, early, late})
}
