package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"

	"weft/internal/status"
	"weft/internal/testnet"
)

// sealedPods starts two nodes that seal what they send, with a pod on each.
func sealedPods(t *testing.T) (cluster *testnet.Cluster, pod1, pod2 *testnet.Pod) {
	t.Helper()
	cluster = startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true})
	return cluster, addPod(t, cluster.Nodes()[0], "a"), addPod(t, cluster.Nodes()[1], "b")
}

// shownPeer is what a node says of another one, as a program asks.
func shownPeer(t *testing.T, node *testnet.Node, name string) status.Peer {
	t.Helper()
	shown := weft(t, node, "peers", "-o", "json", name)
	var peers []status.Peer
	if err := json.Unmarshal([]byte(shown.stdout), &peers); err != nil || shown.status != 0 || len(peers) != 1 || peers[0].Link == nil {
		t.Fatalf("%v: weft peers: exit status %d, %s%s", err, shown.status, shown.stdout, shown.stderr)
	}
	return peers[0]
}

// expectState fails unless a node counts its only peer in this state.
func expectState(t *testing.T, node *testnet.Node, state string) {
	t.Helper()
	for _, s := range []string{"no_keys", "agreeing", "up", "idle", "unreachable"} {
		want := "0"
		if s == state {
			want = "1"
		}
		if got := metric(t, node, fmt.Sprintf("weft_peer_states{state=%q}", s)); got != want {
			t.Errorf("%s peers are %s, want %s", got, s, want)
		}
	}
}

func TestPeersShowsWhoIsUpAndHowMuchPasses(t *testing.T) {
	t.Parallel()
	began := time.Now()
	cluster, pod1, pod2 := sealedPods(t)
	node := cluster.Nodes()[0]
	if got := shownPeer(t, node, "node2"); got.State != "no keys" || !got.KeysBegan.IsZero() {
		t.Errorf("before any packet: %+v", got.Link)
	}
	expectState(t, node, "no_keys")

	expectPings(t, pod1, pod2)
	line := regexp.MustCompile(`(?m)^node2  192\.168\.77\.2:9338  up     [0-9]+s +[0-9]+s +[0-9.]+(µs|ms) +([0-9]+ %|-) +(1440|-) +4 packets, 376 B  4 packets, 376 B  0$`)
	eventually(t, "weft peers to count the packets", func() error { // a moment after they have passed
		if text := weft(t, node, "peers"); text.status != 0 || text.stderr != "" || !line.MatchString(text.stdout) {
			return fmt.Errorf("exit status %d, %s\n%s", text.status, text.stderr, text.stdout)
		}
		return nil
	})
	got := shownPeer(t, node, "node2")
	if got.Key != cluster.Nodes()[1].Entry().Key || got.RTT <= 0 || got.KeysBegan.Before(began) || got.Error != "" {
		t.Errorf("%+v", got.Link)
	}
	expectState(t, node, "up")
	if got := metric(t, node, `weft_handshakes_total{result="agreed"}`); got == "0" {
		t.Error("no handshake is counted")
	}

	unknown := weft(t, node, "peers", "nod2")
	if want := "weft: no peer is named \"nod2\"; did you mean node2?\n"; unknown.status != 1 || unknown.stderr != want {
		t.Errorf("exit status %d, %q; want 1, %q", unknown.status, unknown.stderr, want)
	}
}

func TestRotatingKeysLosesNoPacket(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := sealedPods(t)
	if got := weft(t, cluster.Nodes()[0], "rotate-key"); got.status != 0 || got.stdout != "no peer has keys yet; the first packet to a peer starts a handshake\n" {
		t.Errorf("before any packet: %+v", got)
	}
	expectPings(t, pod1, pod2)
	const pings = "300"
	pinged := make(chan string, 1)
	go func() {
		out, err := pod1.Exec(t.Context(), "ping", "-n", "-q", "-i", "0.01", "-c", pings, "-W2", addrOf(t, pod2, false).String())
		pinged <- fmt.Sprint(out, err)
	}()
	told := regexp.MustCompile(`^new keys with 1 peer in [0-9]+ ms\n$`)
	for i, args := range [][]string{{"rotate-key"}, {"rotate-key", "node2"}, {"rotate-key"}} {
		node := cluster.Nodes()[0]
		before := shownPeer(t, node, "node2").KeysBegan
		if got := weft(t, node, args...); got.status != 0 || got.stderr != "" || !told.MatchString(got.stdout) {
			t.Errorf("weft %v: %+v", args, got)
		}
		if after := shownPeer(t, node, "node2").KeysBegan; !after.After(before) {
			t.Errorf("rotation %d: the keys began at %v before and at %v after it", i, before, after)
		}
		if got := weft(t, cluster.Nodes()[1], "rotate-key"); got.status != 0 || !told.MatchString(got.stdout) {
			t.Errorf("on the other node: %+v", got)
		}
	}
	if out := <-pinged; !strings.Contains(out, pings+" packets transmitted, "+pings+" received") {
		t.Error(out)
	}
}

func TestRotatingKeysWithoutKeysIsRefused(t *testing.T) {
	t.Parallel()
	node := startCluster(t, testnet.ClusterOptions{Nodes: 2}).Nodes()[0]
	got := weft(t, node, "rotate-key")
	if want := "weft: there are no keys, because vxlan does not encrypt\n"; got.status != 1 || got.stderr != want || got.stdout != "" {
		t.Errorf("%+v; want exit status 1, %q", got, want)
	}
	if got := weft(t, node, "peers"); got.status != 0 || !strings.Contains(got.stdout, "\nnode2  192.168.77.2:9338  unknown  ") {
		t.Errorf("%+v", got)
	}
	metrics, err := node.Get(t.Context(), "/metrics")
	if err != nil || strings.Contains(metrics, `state="no_keys"`) || strings.Contains(metrics, "weft_handshakes") {
		t.Errorf("%v: there are metrics of keys", err)
	}
}

func TestRotationNamesAbsentNode(t *testing.T) {
	t.Parallel()
	cluster := newCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true})
	node := cluster.Nodes()[0]
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := weft(t, node, "rotate-key", "node2")
	if got.status != 1 || got.stdout != "" || !strings.HasPrefix(got.stderr, "weft: no new keys with node2: ") {
		t.Errorf("%+v", got)
	}
	if got := weft(t, node, "rotate-key", "node1"); got.status != 1 || got.stderr != "weft: node1 is this node itself, and not a peer\n" {
		t.Errorf("%+v", got)
	}
}

func TestPeersSaysWhyAKilledNodeIsUnreachable(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := sealedPods(t)
	node := cluster.Nodes()[0]
	expectPings(t, pod1, pod2)
	cluster.Nodes()[1].Kill()
	sendOn(t, pod1, addrOf(t, pod2, false))
	reason := regexp.MustCompile(`(?m)^node2 .* unreachable .*\n  \S.*; retried (in [0-9.]+s if there are packets for it|with the next packet for it)$`)
	eventually(t, "weft peers to say why node2 is unreachable", func() error {
		if shown := weft(t, node, "peers"); !reason.MatchString(shown.stdout) {
			return errors.New(shown.stdout)
		}
		return nil
	})
	t.Log(weft(t, node, "peers").stdout)
	if got := shownPeer(t, node, "node2"); got.Error == "" || got.RTT != 0 {
		t.Errorf("%+v", got.Link)
	}
	expectState(t, node, "unreachable")
	if got := metric(t, node, "weft_peer_unreachable_total"); got != "1" {
		t.Errorf("nodes have become unreachable %s times, want 1", got)
	}
}

// sendOn has a pod send packets until the test ends, whether they are answered or not.
func sendOn(t *testing.T, from *testnet.Pod, to netip.Addr) {
	t.Helper()
	ping := from.Command(t.Context(), "ping", "-n", "-q", "-i", "0.1", to.String())
	if err := ping.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ping.Wait() }) // by then the test's context has ended it
}
