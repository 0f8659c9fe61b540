package handshake_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"weft/drop"
	"weft/encap/sealed/handshake"
	"weft/internal/testnet"
	"weft/peer"
)

func TestFirstPacketBringsKeysAndArrives(t *testing.T) {
	nodes := newNodes(t, 2)
	a, b := nodes[0], nodes[1]
	acquaint(a, b)
	if s := a.status(t, b); s.State != handshake.NoKeys {
		t.Errorf("before the first packet: %s", s.State)
	}
	if reason := a.send(b.self, "hello"); reason != drop.None {
		t.Fatal(reason)
	}
	b.expect(t, "hello")
	b.send(a.self, "hello yourself")
	a.expect(t, "hello yourself")
	for _, n := range nodes {
		// The packets may arrive a moment before the handshake has ended here.
		eventually(t, n.self.Name+" has a connection", func() bool {
			return n.status(t, nodes[2-n.number]).State == handshake.Up
		})
		if s := n.status(t, nodes[2-n.number]); s.RTT <= 0 || s.Began.IsZero() {
			t.Errorf("%s: %+v", n.self.Name, s)
		}
	}
}

func TestBothMayBeginAtOnce(t *testing.T) {
	for range 20 {
		nodes := newNodes(t, 2)
		a, b := nodes[0], nodes[1]
		acquaint(a, b)
		var both sync.WaitGroup
		both.Go(func() { a.send(b.self, "from a") })
		both.Go(func() { b.send(a.self, "from b") })
		both.Wait()
		a.expect(t, "from b")
		b.expect(t, "from a")
		// Each node has the receiving keys for what the other one sends.
		for i := range 10 {
			a.send(b.self, fmt.Sprint(i))
			b.expect(t, fmt.Sprint(i))
			b.send(a.self, fmt.Sprint(i))
			a.expect(t, fmt.Sprint(i))
		}
		a.stop()
		b.stop()
	}
}

func TestRotationLosesNothing(t *testing.T) {
	a, b := upPair(t)
	nodes := []*node{a, b}
	ctx, cancel := context.WithTimeout(t.Context(), testnet.WaitLimit)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		for i := range 50 {
			if err := nodes[i%2].manager.Rotate(ctx); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	sent := 0
	for running := true; running; sent++ {
		text := fmt.Sprint("packet ", sent)
		a.send(b.self, text)
		b.expect(t, text)
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		default:
		}
	}
	if lost := b.dropped(); lost != "" {
		t.Errorf("of %d packets some were dropped: %s", sent, lost)
	}
	if n := b.manager.Counts().Agreed; n < 51 {
		t.Errorf("keys were agreed %d times", n)
	}
}

func TestNonPeerGetsNoKeysAndNoAnswer(t *testing.T) {
	nodes := newNodes(t, 3)
	a, b, stranger := nodes[0], nodes[1], nodes[2]
	acquaint(a, b)
	stranger.know(a.self, b.self)
	stranger.send(b.self, "let me in")
	eventually(t, "the non-peer gives up", func() bool { return stranger.manager.Counts().Failed > 0 })
	if n := b.drops[drop.UnknownPeer].Load(); n == 0 {
		t.Error("its packets were not dropped")
	}
	if b.manager.Counts().Agreed != 0 || len(b.arrived) != 0 {
		t.Error("it got keys")
	}
}

// A peer's address alone gets no keys.
func TestAWrongKeyIsRefused(t *testing.T) {
	for name, wrong := range map[string]func(a, b *node){
		"the node that is dialed knows another key": func(a, b *node) { b.know(withKey(a.self, 1)) },
		"the node that dials knows another key":     func(a, b *node) { a.know(withKey(b.self, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			nodes := newNodes(t, 2)
			a, b := nodes[0], nodes[1]
			acquaint(a, b)
			wrong(a, b)
			to := a.table.Load().ByKey(a.manager.Status()[0].Key)
			a.send(to, "secret")
			eventually(t, "the handshake fails", func() bool { return a.manager.Counts().Failed > 0 })
			if a.manager.Counts().Agreed+b.manager.Counts().Agreed != 0 || len(b.arrived) != 0 {
				t.Error("keys were agreed")
			}
			if s := a.manager.Status()[0]; s.State != handshake.Unreachable || s.Err == nil {
				t.Errorf("status: %+v", s)
			}
		})
	}
}

// withKey is the same node with another key.
func withKey(p *peer.Peer, first byte) *peer.Peer {
	other := *p
	other.Key = peer.Fingerprint{first}
	return &other
}

func TestADeadNodeIsNoticedAndComesBack(t *testing.T) {
	a, b := upPair(t)
	b.conn.Close() // as a node that is killed: no word of farewell
	died := time.Now()
	eventually(t, "the dead node is noticed", func() bool {
		a.send(b.self, "are you there?")
		return a.status(t, b).State == handshake.Unreachable
	})
	t.Logf("noticed after %s", time.Since(died))
	b.stop()

	again := startNode(t, int(nextSubnet.Load()), 2, b.key)
	again.know(a.self)
	back := time.Now()
	eventually(t, "packets arrive at the restarted node", func() bool {
		a.send(b.self, "again")
		return len(again.arrived) > 0
	})
	t.Logf("packets arrive %s after its restart", time.Since(back))
}

func TestAKeyThatChangesInTheListIsCutOff(t *testing.T) {
	nodes := newNodes(t, 2)
	a, b := nodes[0], nodes[1]
	acquaint(a, b)
	a.send(b.self, "hello")
	b.expect(t, "hello")
	b.know(withKey(a.self, 1))
	a.send(b.self, "still me")
	eventually(t, "what it sends is dropped", func() bool { return b.drops[drop.UnknownIndex].Load() > 0 })
	if len(b.arrived) != 0 {
		t.Error("it still is listened to")
	}
	eventually(t, "a learns of it", func() bool { return a.status(t, b).State != handshake.Up })
}

func TestQUICOnlyFromPeersAndInItsSize(t *testing.T) {
	nodes := newNodes(t, 2)
	a, b := nodes[0], nodes[1]
	acquaint(a, b)
	elsewhere := netip.MustParseAddrPort("192.0.2.1:9338")
	for _, tc := range []struct {
		name string
		size int
		from netip.AddrPort
		want drop.Reason
	}{
		{"a peer's packet", 1200, b.self.Endpoint, drop.None},
		{"a peer's, from another port", 1200, netip.AddrPortFrom(b.self.Endpoint.Addr(), 1), drop.None},
		{"a non-peer's", 1200, elsewhere, drop.UnknownPeer},
		{"one that is larger than any", 1501, b.self.Endpoint, drop.BadHeader},
	} {
		packet := make([]byte, tc.size)
		packet[0] = 0x40
		if got := a.manager.Receive(packet, tc.from); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}
