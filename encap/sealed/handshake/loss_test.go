package handshake_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"weft/encap/sealed/handshake"
)

// Whichever packet of a handshake is lost, QUIC sends it again: no attempt fails, and the packet
// that waits for keys arrives.
func TestALostPacketFailsNoHandshake(t *testing.T) {
	for lost := range 12 {
		t.Run(fmt.Sprint(lost), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network, nodes := simNodes(t, 2)
				a, b := nodes[0], nodes[1]
				sent := 0
				network.setPass(func(_, _ netip.AddrPort, payload []byte) bool {
					if payload[0] < 0x40 {
						return true // a pod's packet
					}
					sent++
					return sent != lost+1
				})
				a.up(t, b)
				if a.manager.Counts().Failed+b.manager.Counts().Failed != 0 {
					t.Error("an attempt failed")
				}
			})
		})
	}
}

// A dial without an answer is tried again within seconds, though no packet is for the peer any
// more: it may have been busy.
func TestADialWithoutAnAnswerIsTriedAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, nodes := simNodes(t, 2)
		a, b := nodes[0], nodes[1]
		network.setPass(func(_, _ netip.AddrPort, _ []byte) bool { return false })
		a.send(b.self, "lost")
		time.Sleep(4 * time.Second)
		if s := a.status(b); s.State != handshake.Unreachable {
			t.Fatalf("after 4 s: %+v", s)
		}
		network.setPass(nil)
		time.Sleep(4 * time.Second)
		if s := a.status(b); s.State != handshake.Up {
			t.Errorf("after 8 s: %+v", s)
		}
	})
}

// Many more nodes than the limit allows dial one at the same time: they wait for a place, or are
// refused and try again, and no attempt fails.
func TestManyDialsAtOnceFailNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := simNodes(t, 1+200)
		one := nodes[0]
		for _, n := range nodes[1:] {
			n.send(one.self, n.self.Name)
		}
		time.Sleep(30 * time.Second)
		got := one.got()
		for _, n := range nodes[1:] {
			if n.manager.Counts().Failed != 0 || !slices.Contains(got, n.self.Name) {
				t.Errorf("%s: %d attempts failed; %+v", n.self.Name, n.manager.Counts().Failed, n.status(one))
			}
		}
	})
}

// A node that dials many peers at once, some of which are down, agrees with all others.
func TestPeersThatAreDownHoldUpNoOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, nodes := simNodes(t, 1+200)
		one := nodes[0]
		down := map[netip.AddrPort]bool{}
		for i, n := range nodes[1:] {
			down[n.self.Endpoint] = i%2 == 0
		}
		network.setPass(func(_, to netip.AddrPort, _ []byte) bool { return !down[to] })
		for range 30 {
			for _, n := range nodes[1:] {
				one.send(n.self, "hello")
			}
			time.Sleep(time.Second)
		}
		for _, n := range nodes[1:] {
			if up := one.status(n).State == handshake.Up; up == down[n.self.Endpoint] {
				t.Errorf("%s: down is %t; %+v", n.self.Name, down[n.self.Endpoint], one.status(n))
			}
		}
	})
}
