package sealed_test

import (
	"crypto/rand"
	"net/netip"
	"testing"

	"weft/drop"
	"weft/encap"
	"weft/encap/sealed"
	"weft/packet/packettest"
)

// A node may claim any endpoint in the list. It gets that address' packets, and may send under
// it, only with keys that were agreed there.
func TestEndpointMustBeProven(t *testing.T) {
	for _, family := range []struct {
		name              string
		endpoint, another netip.Addr // of node2: what the list says, and where it really is
		pod1, pod2        netip.Addr
	}{
		{"IPv4", netip.MustParseAddr("192.168.77.2"), netip.MustParseAddr("192.168.77.66"), netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("10.244.2.3")},
		{"IPv6", netip.MustParseAddr("fd00:77::2"), netip.MustParseAddr("fd00:77::66"), netip.MustParseAddr("fd00:244:1::2"), netip.MustParseAddr("fd00:244:2::3")},
	} {
		for _, tc := range []struct {
			name   string
			agreed []netip.Addr // where, one epoch after the other
			proven bool
		}{
			{"agreed at the endpoint", []netip.Addr{family.endpoint}, true},
			{"agreed elsewhere", []netip.Addr{family.another}, false},
			{"agreed elsewhere, then at the endpoint", []netip.Addr{family.another, family.endpoint}, true},
			{"agreed at the endpoint, then elsewhere", []netip.Addr{family.endpoint, family.another}, false},
			{"agreed at the endpoint twice", []netip.Addr{family.endpoint, family.endpoint}, true},
		} {
			t.Run(family.name+", "+tc.name, func(t *testing.T) {
				ends := newEnds(t, 2, 1)
				a, b := ends[0], ends[1]
				b.self.Endpoint = netip.AddrPortFrom(family.endpoint, 9338)
				toNode := packettest.UDP(family.pod1, family.endpoint, 10)
				toPod := packettest.UDP(family.pod1, family.pod2, 20)

				// Without keys both wait, and with the first keys the one for the node goes only
				// if it may.
				a.encode(t, 0, b, frame(toNode))
				a.encode(t, 0, b, frame(toPod))
				want := 1
				if tc.agreed[0] == family.endpoint {
					want = 2
				}
				if waited := agreeAt(t, a, b, tc.agreed[0]); len(waited) != want {
					t.Errorf("%d of the packets that waited go, want %d", len(waited), want)
				}
				for _, at := range tc.agreed[1:] {
					agreeAt(t, a, b, at)
				}
				a.knows(b).HandshakeDone(true)
				for len(a.peers.Wanted) > 0 {
					<-a.peers.Wanted
				}

				toReason, fromReason, asks := drop.NoKeys, drop.SourceNotPeer, 1
				if tc.proven {
					toReason, fromReason, asks = drop.None, drop.None, 0
				}
				f, out := frame(toNode), encap.Batch{}
				if reason := a.codecs[0].Encode(&out, &f, a.self, b.self); reason != toReason {
					t.Errorf("to the endpoint: %v, want %v", reason, toReason)
				}
				fromNode := b.encode(t, 0, a, frame(packettest.UDP(family.endpoint, family.pod1, 10)))[0]
				if _, _, reason := a.decode(fromNode, b.addr()); reason != fromReason {
					t.Errorf("from the endpoint: %v, want %v", reason, fromReason)
				}
				if n := len(a.peers.Wanted); n != asks {
					t.Errorf("keys are asked for %d times, want %d", n, asks)
				}

				// Pods are not concerned.
				if n := len(a.encode(t, 0, b, frame(toPod))); n != 1 {
					t.Errorf("to a pod: %d datagrams", n)
				}
				fromPod := b.encode(t, 0, a, frame(packettest.UDP(family.pod2, family.pod1, 10)))[0]
				if _, _, reason := a.decode(fromPod, b.addr()); reason != drop.None {
					t.Errorf("from a pod: %v", reason)
				}
			})
		}
	}
}

// TestFirstDatagramProvesKeys: a node that was killed has no keys but the new ones. Its peer
// answers the first packet with them, before the handshake has said that they are in use; and
// a datagram of an older epoch that comes late changes nothing.
func TestFirstDatagramProvesKeys(t *testing.T) {
	ends := newEnds(t, 2, 1)
	a, b := ends[0], ends[1]
	var epochs []*sealed.Epoch // at b
	var first [][]byte         // datagrams of a, one in each epoch
	for range 3 {
		var secrets sealed.Secrets
		_, _ = rand.Read(secrets.Send[:])
		_, _ = rand.Read(secrets.Receive[:])
		theirs := sealed.Secrets{Send: secrets.Receive, Receive: secrets.Send}
		atA, err := a.knows(b).Begin(&secrets, b.addr())
		if err != nil {
			t.Fatal(err)
		}
		atB, err := b.knows(a).Begin(&theirs, a.addr())
		if err != nil {
			t.Fatal(err)
		}
		atA.Expect(b.lanes, atB.Session())
		atB.Expect(a.lanes, atA.Session())
		atA.Use(func([]byte) {})
		epochs = append(epochs, atB)
		first = append(first, a.encode(t, 0, b, frame(from1to2(10)))...)
	}
	epochs[0].Use(func([]byte) {})
	index := func() string {
		return string(b.encode(t, 0, a, frame(packettest.UDP(netip.MustParseAddr("10.244.2.3"), netip.MustParseAddr("10.244.1.2"), 10)))[0][4:8])
	}
	old := index()
	for i, tt := range []struct {
		epoch int
		moves bool
	}{{0, false}, {1, false}, {2, true}, {1, false}} {
		before := index()
		if _, _, reason := b.decode(first[tt.epoch], a.addr()); reason != drop.None && i < 3 {
			t.Fatalf("datagram of epoch %d: %v", tt.epoch, reason)
		}
		if moved := index() != before; moved != tt.moves {
			t.Errorf("after a datagram of epoch %d: the answer's epoch changed is %v, want %v", tt.epoch, moved, tt.moves)
		}
	}
	if index() == old {
		t.Error("the answer is sealed with the first epoch's keys")
	}
}

// When an epoch ends, nothing of its secrets is left, and no lane seals or opens with it.
func TestKeysAreWipedAtTheEnd(t *testing.T) {
	ends := newEnds(t, 2, 2)
	a, b := ends[0], ends[1]
	secrets := new(sealed.Secrets)
	_, _ = rand.Read(secrets.Send[:])
	e, err := a.knows(b).Begin(secrets, b.addr())
	if err != nil {
		t.Fatal(err)
	}
	if *secrets != (sealed.Secrets{}) {
		t.Error("the caller still has the secrets")
	}
	e.Expect(2, 1)
	e.Use(func([]byte) {})
	a.encode(t, 0, b, frame(from1to2(10)))
	held := e.Secrets()
	e.End()
	if *held != (sealed.Secrets{}) {
		t.Error("the secrets are still there")
	}
	for lane := range 32 {
		if e.Holds(lane) {
			t.Errorf("lane %d still has a cipher", lane)
		}
	}
}
