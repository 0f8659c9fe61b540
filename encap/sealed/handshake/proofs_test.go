package handshake_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"weft/encap/sealed/handshake"
	"weft/peer"
)

// Of the further addresses that nodes claim, each gets those at which it answers with its key,
// and for as long as it does. To find that out begins no epoch.
func TestFurtherAddressesAreProvenByTheKeyAlone(t *testing.T) {
	const lapse = 2 * time.Second
	nodes := newNodes(t, 3, handshake.Proofs(50*time.Millisecond, lapse))
	a, b, c := nodes[0], nodes[1], nodes[2]
	acquaint(nodes...)
	second, nobodys := a.endpointOf(5).Addr(), a.endpointOf(6).Addr()
	there := startNode(t, int(nextSubnet.Load()), 5, b.key)
	there.know(a.self)
	a.know(claiming(b.self, second, nobodys, c.self.Endpoint.Addr()), claiming(c.self, second, b.self.Endpoint.Addr()))

	proven := func(want map[netip.Addr]peer.Fingerprint) func() bool {
		return func() bool { return maps.Equal(a.manager.Proven(), want) }
	}
	isB := map[netip.Addr]peer.Fingerprint{second: b.self.Key}
	eventually(t, "what answers is proven", proven(isB))
	eventually(t, "all claims are tried", func() bool { return a.manager.TriedClaims() == 5 })
	if !proven(isB)() {
		t.Errorf("proven are %v, want %v", a.manager.Proven(), isB)
	}
	if got := there.manager.Counts(); got != (handshake.Counts{}) {
		t.Errorf("the proofs count as handshakes: %+v", got)
	}

	there.stop()
	there = startNode(t, int(nextSubnet.Load()), 5, c.key)
	there.know(a.self)
	eventually(t, "the address moves to the node that answers", proven(map[netip.Addr]peer.Fingerprint{second: c.self.Key}))
	there.stop()
	eventually(t, "no peer answers any more", proven(nil))
}

// An older node has its key shown by all of its addresses too, but drops what is for them: it
// must not count as proven.
func TestOlderNodesProveNothing(t *testing.T) {
	nodes := newNodes(t, 1, handshake.Proofs(50*time.Millisecond, time.Second))
	a := nodes[0]
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := startNode(t, int(nextSubnet.Load()), 2, key, handshake.WithoutProofs)
	second := startNode(t, int(nextSubnet.Load()), 5, key, handshake.WithoutProofs)
	b.know(a.self)
	second.know(a.self)
	a.know(claiming(b.self, second.self.Endpoint.Addr()))
	eventually(t, "the claim is tried", func() bool { return a.manager.TriedClaims() == 1 })
	if got := a.manager.Proven(); len(got) > 0 {
		t.Errorf("proven are %v", got)
	}
}

// A node that starts again goes on with what was proven, where the same node claims it still.
func TestProofsOutliveARestart(t *testing.T) {
	a, b := newNodes(t, 1)[0], peer.Fingerprint{1}
	kept, others, gone := a.endpointOf(5).Addr(), a.endpointOf(6).Addr(), a.endpointOf(7).Addr()
	a.manager.Restore(map[netip.Addr]peer.Fingerprint{kept: b, others: {2}, gone: b})
	claimant := &peer.Peer{Name: "b", Key: b, Endpoint: a.endpointOf(8)}
	a.know(claiming(claimant, kept, others))
	if got, want := a.manager.Proven(), (map[netip.Addr]peer.Fingerprint{kept: b}); !maps.Equal(got, want) {
		t.Errorf("after a restart %v, want %v", got, want)
	}
	<-a.manager.Proved() // it is less than before
	a.know(claiming(claimant, kept, others, gone))
	if got, want := a.manager.Proven(), (map[netip.Addr]peer.Fingerprint{kept: b}); !maps.Equal(got, want) {
		t.Errorf("with a claim that is made later %v, want %v", got, want)
	}
	a.know(claimant)
	<-a.manager.Proved()
	if got := a.manager.Proven(); len(got) > 0 {
		t.Errorf("without claims %v is proven", got)
	}
}

// A peer that claims other addresses all the time has this node dial no more of them.
func TestClaimsThatChangeGetFewDials(t *testing.T) {
	const minutes = 20
	claimant := &peer.Peer{Name: "b", Key: peer.Fingerprint{1}, Endpoint: netip.MustParseAddrPort("192.168.77.2:9338")}
	claims := handshake.NewClaims()
	for second := range minutes * 60 {
		claimant.Claimed = []netip.Addr{netip.AddrFrom4([4]byte{198, 51, byte(second >> 8), byte(second)})}
		if second%7 == 0 {
			claimant.Claimed = nil
		}
		claims.Pass(time.Second, claimant)
	}
	if got := claims.Dials; got < 12 || got > 12+minutes/2 {
		t.Errorf("%d dials in %d minutes; want 12, and one more every 2 minutes", got, minutes)
	}
}

// An address stays with the peer that has proven it for as long as that one answers, though
// another one does too: a Service can lead one port of it to a pod of any node.
func TestProofsAreNotTakenOver(t *testing.T) {
	owner, taker := peer.Fingerprint{1}, peer.Fingerprint{2}
	addr := netip.MustParseAddr("192.168.78.1")
	peers := []*peer.Peer{
		{Name: "owner", Key: owner, Endpoint: netip.MustParseAddrPort("192.168.77.1:9338")},
		{Name: "taker", Key: taker, Endpoint: netip.MustParseAddrPort("192.168.77.2:31000"), Claimed: []netip.Addr{addr}},
	}
	claims := handshake.NewClaims()
	expect := func(what string, want peer.Fingerprint) {
		t.Helper()
		if got := claims.Proven(); len(got) != 1 || got[addr] != want {
			t.Fatalf("%s: proven are %v", what, got)
		}
	}
	for range 10 {
		claims.Pass(time.Minute, peers...)
	}
	peers[0].Claimed = []netip.Addr{addr}
	claims.Answers = map[netip.Addr][]peer.Fingerprint{addr: {owner}}
	claims.Pass(time.Second, peers...)
	expect("the owner alone answers", owner)
	claims.Answers[addr] = []peer.Fingerprint{owner, taker}
	for range 200 {
		claims.Pass(time.Minute, peers...)
		expect("both answer", owner)
	}
	before := claims.Dials
	claims.Answers[addr] = []peer.Fingerprint{taker}
	for range 25 { // the next dial of either finds it out
		claims.Pass(time.Minute, peers...)
	}
	expect("the owner is gone", taker)
	if want := []string{"taker", "owner", "owner", "taker"}; !slices.Equal(claims.Logged, want) {
		t.Errorf("logged are news of %v, want %v", claims.Logged, want)
	}
	if dials := claims.Dials - before; dials > 20 {
		t.Errorf("%d dials to find that out", dials)
	}
}

// With very many claims a proof is renewed late. That a single dial gets lost then ends none.
func TestLateProofsSurviveALostDial(t *testing.T) {
	addr := netip.MustParseAddr("192.168.78.1")
	claimant := &peer.Peer{Name: "b", Key: peer.Fingerprint{1}, Endpoint: netip.MustParseAddrPort("192.168.77.2:9338"), Claimed: []netip.Addr{addr}}
	claims := handshake.NewClaims()
	claims.Answers = map[netip.Addr][]peer.Fingerprint{addr: {claimant.Key}}
	claims.Pass(time.Second, claimant)
	claims.Answers = nil
	claims.Pass(40*time.Minute, claimant)
	if len(claims.Proven()) != 1 {
		t.Error("one lost dial ended a proof")
	}
	claims.Pass(time.Minute, claimant)
	if got := claims.Proven(); len(got) != 0 {
		t.Errorf("after two failures proven are %v", got)
	}
}

// An address that is never proven, such as behind a firewall, is tried once when keys are agreed
// with its peer, which happens all the time where packets pass now and then.
func TestKeysAgreedCostADialEach(t *testing.T) {
	claimant := &peer.Peer{Name: "b", Key: peer.Fingerprint{1}, Endpoint: netip.MustParseAddrPort("192.168.77.2:9338"), Claimed: []netip.Addr{netip.MustParseAddr("192.168.78.1")}}
	claims := handshake.NewClaims()
	for range 60 {
		claims.Pass(time.Minute, claimant)
	}
	const times = 20
	before := claims.Dials
	for range times {
		claims.Agree(claimant)
		for range 6 {
			claims.Pass(time.Minute, claimant)
		}
	}
	if dials := claims.Dials - before; dials < times || dials > 2*times {
		t.Errorf("%d dials, with keys agreed %d times", dials, times)
	}
}

func claiming(p *peer.Peer, addrs ...netip.Addr) *peer.Peer {
	other := *p
	other.Claimed = addrs
	return &other
}
