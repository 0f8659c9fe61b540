package handshake_test

import (
	"net/netip"
	"testing"
	"time"

	"weft/peer"
)

// A peer whose endpoint changes in the list is dialed there at once, however its old one
// fails, and gets what has waited meanwhile.
func TestListedEndpointIsDialedAtOnce(t *testing.T) {
	for _, tc := range []struct {
		name     string
		at       int // the number of the node at the old endpoint; 4 does not exist
		failures uint64
	}{
		{"while no node answers at the old endpoint", 4, 0},
		{"while it is to be dialed again at the old endpoint in a second or two", 3, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			nodes := newNodes(t, 3)
			a, b := nodes[0], nodes[1]
			b.know(a.self)
			nodes[2].know(a.self)
			old := at(b.self, a.endpointOf(tc.at))
			a.know(old)
			eventually(t, "the old endpoint fails", func() bool {
				a.send(old, "lost")
				return a.manager.Counts().Failed >= tc.failures
			})
			a.send(old, "has waited")
			time.Sleep(100 * time.Millisecond)

			a.know(b.self)
			b.expect(t, "has waited")
			a.send(b.self, "hello")
			b.expect(t, "hello")
		})
	}
}

// endpointOf is where the node with a number is that was started together with n.
func (n *node) endpointOf(number int) netip.AddrPort {
	addr := n.self.Endpoint.Addr().As4()
	addr[3] = byte(number)
	return netip.AddrPortFrom(netip.AddrFrom4(addr), n.self.Endpoint.Port())
}

// at is the same node elsewhere.
func at(p *peer.Peer, endpoint netip.AddrPort) *peer.Peer {
	other := *p
	other.Endpoint = endpoint
	return &other
}

// A peer that has roamed and is back where the list has it, without keys, is reached again,
// whichever of the two begins.
func TestRoamedPeerComesBack(t *testing.T) {
	for _, tc := range []struct {
		name  string
		begin func(a, b *node, roamed *peer.Peer)
	}{
		{"and dials", func(a, b *node, _ *peer.Peer) { b.send(a.self, "from b") }},
		{"and is dialed", func(a, _ *node, roamed *peer.Peer) { a.send(roamed, "from a") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			nodes := newNodes(t, 2)
			a, b := nodes[0], nodes[1]
			roamed := at(b.self, a.endpointOf(4)) // where no node is any more
			roamed.Listed = b.self.Endpoint
			a.know(roamed)
			b.know(a.self)
			for a.manager.Counts().Agreed == 0 {
				tc.begin(a, b, roamed)
				time.Sleep(50 * time.Millisecond)
			}
			move := <-a.manager.Followed
			if move.Peer.Key != b.self.Key || move.Addr != b.self.Endpoint.Addr() {
				t.Fatalf("a follows to %v", move)
			}
			a.know(b.self) // which is what weftd does
			a.send(b.self, "hello")
			b.expect(t, "hello")
			b.send(a.self, "hello")
			a.expect(t, "hello")
		})
	}
}
