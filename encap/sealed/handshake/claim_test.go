package handshake_test

import (
	"testing"

	"weft/drop"
	"weft/packet/packettest"
)

// A node that registers an endpoint of its choice neither sends under that address nor gets
// what is for it, while its pods are reached as before. Where it does answer, it has the
// address: after a restart, after new keys, and where it has roamed.
func TestClaimedEndpointIsNotBelieved(t *testing.T) {
	a, b := upPair(t)
	underItsAddress := func() drop.Reason {
		before := a.drops[drop.SourceNotPeer].Load()
		b.sendIP(a.self, packettest.UDP(a.peerEndpoint(b), pod(a.self), 40))
		b.send(a.self, "behind it")
		a.expect(t, "behind it")
		if a.drops[drop.SourceNotPeer].Load() != before {
			return drop.SourceNotPeer
		}
		return drop.None
	}
	if got := underItsAddress(); got != drop.None {
		t.Fatalf("at its endpoint: %v", got)
	}
	if err := b.manager.Rotate(t.Context(), a.self.Name); err != nil {
		t.Fatal(err)
	}
	if got := underItsAddress(); got != drop.None {
		t.Errorf("after new keys: %v", got)
	}

	claimed := at(b.self, a.endpointOf(4))
	a.know(claimed)
	if got := underItsAddress(); got != drop.SourceNotPeer {
		t.Errorf("from an address that it only claims: %v", got)
	}
	toIt := packettest.UDP(pod(a.self), claimed.Endpoint.Addr(), 40)
	if got := a.sendIP(claimed, toIt); got != drop.NoKeys {
		t.Errorf("to an address that it only claims: %v", got)
	}

	there := startNode(t, int(nextSubnet.Load()), 4, b.key) // the same key, at the address after all
	there.know(a.self)
	eventually(t, "it has the address", func() bool {
		return a.sendIP(claimed, toIt) == drop.None && a.peers.Find(b.self.Key).Sending().At() == claimed.Endpoint.Addr()
	})
}
