package sealed_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"weft/drop"
	"weft/encap"
	"weft/encap/sealed"
	"weft/fib"
	"weft/packet"
	"weft/packet/packettest"
	"weft/peer"
)

// end is one of several nodes that know each other.
type end struct {
	self   *peer.Peer
	peers  *sealed.Peers
	table  *fib.Table
	quic   [][]byte // what was handed on as part of a handshake
	lanes  int
	codecs []*sealed.Codec
}

func (e *end) Receive(payload []byte, _ netip.AddrPort) drop.Reason {
	if len(e.quic) == 4 {
		return drop.HandshakesFull
	}
	e.quic = append(e.quic, bytes.Clone(payload))
	return drop.None
}

// newEnds returns n nodes that know each other, without keys.
func newEnds(t testing.TB, n, lanes int) []*end {
	t.Helper()
	var all []*peer.Peer
	for i := range n {
		all = append(all, &peer.Peer{
			Name:     fmt.Sprintf("node%d", i+1),
			Endpoint: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 168, 77, byte(i + 1)}), 9338),
			Prefixes: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", i+1))},
			Key:      peer.Fingerprint{byte(i + 1)},
		})
	}
	var ends []*end
	for i, self := range all {
		others := slices.Delete(slices.Clone(all), i, i+1)
		table, err := fib.New(self, others)
		if err != nil {
			t.Fatal(err)
		}
		e := &end{self: self, peers: sealed.NewPeers(), table: table, lanes: lanes}
		e.peers.Set(others)
		for lane := range lanes {
			e.codecs = append(e.codecs, sealed.NewCodec(e.peers, e, lane, lanes))
		}
		ends = append(ends, e)
	}
	return ends
}

// knows returns what e has of another node.
func (e *end) knows(o *end) *sealed.Peer { return e.peers.Find(o.self.Key) }

// agree gives two nodes the keys of a new epoch, and returns what waited for them at a.
func agree(t testing.TB, a, b *end) (waited [][]byte) {
	t.Helper()
	return agreeAt(t, a, b, b.addr())
}

// agreeAt is agree where b is at an address.
func agreeAt(t testing.TB, a, b *end, at netip.Addr) (waited [][]byte) {
	t.Helper()
	var secrets sealed.Secrets
	_, _ = rand.Read(secrets.Send[:])
	_, _ = rand.Read(secrets.Receive[:])
	theirs := sealed.Secrets{Send: secrets.Receive, Receive: secrets.Send}
	atA, err := a.knows(b).Begin(&secrets, at)
	if err != nil {
		t.Fatal(err)
	}
	atB, err := b.knows(a).Begin(&theirs, a.addr())
	if err != nil {
		t.Fatal(err)
	}
	atA.Expect(b.lanes, atB.Session())
	atB.Expect(a.lanes, atA.Session())
	atA.Use(func(datagram []byte) { waited = append(waited, datagram) })
	atB.Use(func([]byte) {})
	return waited
}

// pair returns two nodes that have keys.
func pair(t testing.TB, lanes int) (a, b *end) {
	t.Helper()
	ends := newEnds(t, 2, lanes)
	agree(t, ends[0], ends[1])
	return ends[0], ends[1]
}

func frame(b []byte) packet.Frame {
	f := packet.NewFrames(1, packet.MaxSize)[0]
	f.Fill(copy(f.Reset(), b))
	return f
}

// encode returns the datagrams in which a lane of e sends a packet to o.
func (e *end) encode(t testing.TB, lane int, o *end, f packet.Frame) (datagrams [][]byte) {
	t.Helper()
	var out encap.Batch
	if reason := e.codecs[lane].Encode(&out, &f, e.self, o.self); reason != drop.None {
		t.Fatalf("Encode = %v", reason)
	}
	for _, datagram := range out.Datagrams() {
		datagrams = append(datagrams, datagram)
	}
	return datagrams
}

// decode returns the packet in a datagram that o has sent to e, and where it was refused why.
func (e *end) decode(datagram []byte, from netip.Addr) ([]byte, *peer.Peer, drop.Reason) {
	lane := 0
	if len(datagram) > 7 {
		lane = int(datagram[7]&31) % e.lanes
	}
	r := encap.Received{Frame: frame(datagram), From: netip.AddrPortFrom(from, 51104)}
	peer, reason := e.codecs[lane].Decode(&r, e.table)
	return r.Packet(), peer, reason
}

func (e *end) addr() netip.Addr { return e.self.Endpoint.Addr() }

// from1to2 is a packet of a pod of node1 to one of node2.
func from1to2(n int) []byte {
	return packettest.UDP(netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("10.244.2.3"), n)
}

func superPacket(payload, segment int) packet.Frame {
	p := packettest.TCP{
		From: netip.MustParseAddrPort("10.244.1.2:40000"), To: netip.MustParseAddrPort("10.244.2.3:80"),
		Flags: packettest.ACK | packettest.PSH, Window: 500, Options: []byte{1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9},
		TTL: 63, DontFragment: true, Payload: make([]byte, payload),
	}
	_, _ = rand.Read(p.Payload)
	return p.Super(segment)
}

func TestAPacketArrivesAsItWasSent(t *testing.T) {
	a, b := pair(t, 1)
	for n := range 1400 {
		ip := from1to2(n)
		datagrams := a.encode(t, 0, b, frame(ip))
		if len(datagrams) != 1 || len(datagrams[0]) != len(ip)+sealed.HeaderLen+sealed.TagLen {
			t.Fatalf("%d datagrams, the first of %d bytes", len(datagrams), len(datagrams[0]))
		}
		got, peer, reason := b.decode(datagrams[0], a.addr())
		if reason != drop.None || peer.Name != "node1" || !bytes.Equal(got, ip) {
			t.Fatalf("%d bytes: %v of %v, %v", n, got, peer, reason)
		}
	}
}

// What a super-packet's segments are is for package packet to say.
func TestASuperPacketArrivesAsItsSegments(t *testing.T) {
	a, b := pair(t, 1)
	for _, size := range []int{1, 7, 51, 52, 53, 100, 1368} {
		for _, segments := range []int{1, 2, 3, 40} {
			for _, last := range []int{1, size/2 + 1, size} {
				f := superPacket((segments-1)*size+last, size)
				copied := f.Clone(0)
				cut, ok := copied.Cut(false)
				if !ok {
					t.Fatalf("%d segments of %d bytes cannot be cut", segments, size)
				}
				for i, datagram := range a.encode(t, 0, b, f) {
					want := make([]byte, cut.HeaderLen)
					cut.Header(want, i)
					want = append(want, cut.Payload(i)...)
					if got, _, reason := b.decode(datagram, a.addr()); reason != drop.None || !bytes.Equal(got, want) {
						t.Fatalf("segment %d of %d of %d bytes arrives as %x, %v, want %x", i, segments, size, got, reason, want)
					}
				}
			}
		}
	}
}

func TestEveryFaultIsDroppedUnderItsReason(t *testing.T) {
	ends := newEnds(t, 3, 2)
	a, b, c := ends[0], ends[1], ends[2]
	agree(t, a, b)
	agree(t, a, c)
	agree(t, c, b)
	ip := from1to2(64)
	good := a.encode(t, 1, b, frame(ip))[0]
	edit := func(at int, xor byte) []byte {
		d := bytes.Clone(good)
		d[at] ^= xor
		return d
	}
	for _, tc := range []struct {
		name     string
		datagram []byte
		want     drop.Reason
	}{
		{"nothing", nil, drop.Truncated},
		{"a header", good[:sealed.HeaderLen], drop.Truncated},
		{"a header and half a tag", good[:sealed.HeaderLen+8], drop.Truncated},
		{"another type", edit(0, 2), drop.BadHeader},
		{"a reserved byte", edit(2, 1), drop.BadHeader},
		{"another session", edit(4, 0x10), drop.UnknownIndex},
		{"the next slot", edit(6, 0x20), drop.UnknownIndex},
		{"another lane of the same peer", edit(7, 1), drop.NotAuthentic},
		{"a lane that the peer does not have", edit(7, 4), drop.UnknownIndex},
		{"another counter", edit(15, 1), drop.NotAuthentic},
		{"a counter beyond any key's", edit(8, 0x80), drop.Replayed},
		{"another first byte inside", edit(sealed.HeaderLen, 1), drop.NotAuthentic},
		{"another last byte inside", edit(len(good)-sealed.TagLen-1, 1), drop.NotAuthentic},
		{"another tag", edit(len(good)-1, 0x80), drop.NotAuthentic},
		{"a tag that is cut off", good[:len(good)-1], drop.NotAuthentic},
		{"a byte behind the tag", append(bytes.Clone(good), 0), drop.NotAuthentic},
		{"a tag alone", good[:sealed.HeaderLen+sealed.TagLen], drop.NotAuthentic},
		{"what it sent itself", b.encode(t, 1, a, frame(ip))[0], drop.UnknownIndex},
		{"what is for another node", a.encode(t, 1, c, frame(ip))[0], drop.UnknownIndex},
	} {
		// Two nodes may have the same numbers for sessions.
		got, peer, reason := b.decode(tc.datagram, a.addr())
		if reason != tc.want && (tc.want != drop.UnknownIndex || reason != drop.NotAuthentic) || peer != nil {
			t.Errorf("%s: %v, %v, want %v", tc.name, peer, reason, tc.want)
		}
		if bytes.Contains(got, ip[28:]) {
			t.Errorf("%s: the packet can be read", tc.name)
		}
	}
	if _, _, reason := b.decode(good, a.addr()); reason != drop.None {
		t.Errorf("after all this, the datagram itself: %v", reason)
	}
}

func TestNothingIsDeliveredTwice(t *testing.T) {
	a, b := pair(t, 2)
	var sent [][]byte
	for lane := range 2 {
		for range 20 {
			sent = append(sent, a.encode(t, lane, b, frame(from1to2(100)))...)
		}
	}
	accepted := func() (n int) {
		for _, datagram := range sent {
			if _, peer, _ := b.decode(datagram, a.addr()); peer != nil {
				n++
			}
		}
		return n
	}
	if n := accepted(); n != len(sent) {
		t.Errorf("%d of %d are accepted", n, len(sent))
	}
	if n := accepted(); n != 0 {
		t.Errorf("%d are accepted a second time", n)
	}
	agree(t, a, b)
	if n := accepted(); n != 0 {
		t.Errorf("%d are accepted again in the next epoch", n)
	}
	for _, e := range b.knows(a).Epochs() {
		e.End()
	}
	agree(t, a, b)
	if n := accepted(); n != 0 {
		t.Errorf("%d are accepted again when their epoch is over", n)
	}
}

func TestNoCounterIsUsedTwiceUnderOneKey(t *testing.T) {
	a, b := pair(t, 4)
	seen := map[string]bool{}
	record := func(datagrams [][]byte) {
		for _, d := range datagrams {
			if header := string(d[:sealed.HeaderLen]); seen[header] {
				t.Fatalf("two datagrams have the header %x", header)
			} else {
				seen[header] = true
			}
		}
	}
	for range 3 { // the index differs with the epoch, and the key with it
		for i := range 100 {
			record(a.encode(t, i%4, b, frame(from1to2(10))))
			record(a.encode(t, i%4, b, superPacket(5000, 1000)))
		}
		agree(t, a, b)
	}
	if len(seen) != 3*100*6 {
		t.Errorf("%d datagrams", len(seen))
	}
}

func TestPacketsWaitForKeysAndGoFirst(t *testing.T) {
	ends := newEnds(t, 2, 1)
	a, b := ends[0], ends[1]
	super := superPacket(5000, 1000)
	for _, f := range []packet.Frame{frame(from1to2(1)), frame(from1to2(2)), super.Clone(0), frame(from1to2(3))} {
		if datagrams := a.encode(t, 0, b, f); len(datagrams) != 0 {
			t.Fatalf("%d datagrams leave without keys", len(datagrams))
		}
	}
	if n := len(a.peers.Wanted); n != 1 {
		t.Errorf("keys are asked for %d times", n)
	}
	waited := agree(t, a, b)
	if len(waited) != 1+1+5+1 {
		t.Errorf("%d datagrams have waited", len(waited))
	}
	if got := a.peers.Waited(); got != (sealed.Waited{Packets: 8, Bytes: 29 + 30 + 5*1052 + 31}) {
		t.Errorf("Waited = %+v", got)
	}
	waited = append(waited, a.encode(t, 0, b, frame(from1to2(4)))...)
	var sizes []int
	for _, datagram := range waited {
		got, _, reason := b.decode(datagram, a.addr())
		if reason != drop.None {
			t.Fatalf("what has waited is dropped: %v", reason)
		}
		sizes = append(sizes, len(got))
	}
	if want := []int{29, 30, 1052, 1052, 1052, 1052, 1052, 31, 32}; !slices.Equal(sizes, want) {
		t.Errorf("packets of %v bytes arrive, want %v", sizes, want)
	}
}

func TestWhatWaitsIsBounded(t *testing.T) {
	ends := newEnds(t, 2, 1)
	a, b := ends[0], ends[1]
	var out encap.Batch
	kept := 0
	for range 1000 {
		f := frame(from1to2(1000))
		if a.codecs[0].Encode(&out, &f, a.self, b.self) == drop.None {
			kept++
		}
	}
	if kept < 100 || kept > 256 {
		t.Errorf("%d packets of 1 KB wait", kept)
	}
	a.knows(b).HandshakeDone(false)
	if got := a.peers.Waited(); got != (sealed.Waited{Lost: uint64(kept)}) {
		t.Errorf("%d packets waited; Waited = %+v", kept, got)
	}
	if waited := agree(t, a, b); len(waited) != 0 {
		t.Errorf("%d packets still wait", len(waited))
	}
}

func TestANodeThatIsGoneIsCutOffAtOnce(t *testing.T) {
	a, b := pair(t, 1)
	onTheWay := a.encode(t, 0, b, frame(from1to2(10)))[0]
	gone := b.knows(a)
	b.peers.Set(nil)
	if _, peer, reason := b.decode(onTheWay, a.addr()); peer != nil || reason != drop.UnknownIndex {
		t.Errorf("what it sent: %v, %v", peer, reason)
	}
	var out encap.Batch
	f := frame(from1to2(10))
	if reason := b.codecs[0].Encode(&out, &f, b.self, a.self); reason != drop.NoKeys || out.Len() != 0 {
		t.Errorf("what is sent to it: %v", reason)
	}
	if _, err := gone.Begin(new(sealed.Secrets), b.addr()); err == nil {
		t.Error("keys can still be agreed with it")
	}
}

func TestWhatIsNoDataIsHandedOn(t *testing.T) {
	a, b := pair(t, 1)
	initial := append([]byte{0xc3, 0, 0, 0, 1}, make([]byte, 1195)...)
	for range 4 {
		if _, peer, reason := b.decode(initial, a.addr()); peer != nil || reason != drop.None {
			t.Errorf("%v, %v", peer, reason)
		}
	}
	if len(b.quic) != 4 || !bytes.Equal(b.quic[0], initial) {
		t.Errorf("%d packets were handed on", len(b.quic))
	}
	if _, _, reason := b.decode(initial, a.addr()); reason != drop.HandshakesFull {
		t.Errorf("with no room: %v", reason)
	}
}

func TestRestartedNodeAsksForKeys(t *testing.T) {
	ends := newEnds(t, 2, 1)
	a, b := ends[0], ends[1]
	agree(t, a, b)
	restarted := newEnds(t, 2, 1)[1]
	datagram := a.encode(t, 0, b, frame(from1to2(10)))[0]
	restarted.decode(datagram, netip.MustParseAddr("192.168.77.99"))
	if len(restarted.peers.Wanted) != 0 {
		t.Error("a non-peer makes it ask for keys")
	}
	restarted.decode(datagram, a.addr())
	if len(restarted.peers.Wanted) != 1 {
		t.Error("it does not ask for keys")
	}
	if b.decode(datagram[:40], a.addr()); len(b.peers.Wanted) != 0 {
		t.Error("a node with keys asks for others because of a bad datagram")
	}
}

func TestOnlyAuthenticDatagramsShowRoaming(t *testing.T) {
	a, b := pair(t, 1)
	elsewhere := netip.MustParseAddr("192.168.78.1")
	datagram := a.encode(t, 0, b, frame(from1to2(10)))[0]
	forged := bytes.Clone(datagram)
	forged[20] ^= 1
	b.decode(forged, elsewhere)
	b.decode(datagram, a.addr())
	b.decode(datagram, elsewhere) // again: replayed
	if len(b.peers.Moved) != 0 {
		t.Fatal("a forged or replayed datagram moves a peer")
	}
	b.decode(a.encode(t, 0, b, frame(from1to2(10)))[0], elsewhere)
	select {
	case m := <-b.peers.Moved:
		if m.Addr != elsewhere || m.Peer.Name != "node1" {
			t.Errorf("moved: %+v", m)
		}
	default:
		t.Error("a peer that has moved is not noticed")
	}
}

func TestTrafficIsCountedForEachPeerAcrossEpochs(t *testing.T) {
	a, b := pair(t, 2)
	for range 3 {
		for lane := range 2 {
			for _, datagram := range a.encode(t, lane, b, superPacket(3000, 1000)) {
				b.decode(datagram, a.addr())
				b.decode(datagram, a.addr())
			}
		}
		old := a.knows(b).Sending()
		agree(t, a, b)
		old.End()
	}
	const packets = 3 * 2 * 3
	const size = packets/3*3000 + packets*52
	if got := a.knows(b).Traffic(); got != (sealed.Traffic{SentPackets: packets, SentBytes: size, SentInRuns: packets}) {
		t.Errorf("sent: %+v", got)
	}
	if got := b.knows(a).Traffic(); got != (sealed.Traffic{ReceivedPackets: packets, ReceivedBytes: size, Refused: packets}) {
		t.Errorf("received: %+v", got)
	}
}

func TestNothingIsAllocatedForAPacket(t *testing.T) {
	a, b := pair(t, 1)
	ip, super := frame(from1to2(1000)), superPacket(60_000, 1368)
	original := super.Clone(0)
	var out encap.Batch
	small := packet.NewFrames(1, 2000)[0]
	received := encap.Received{Frame: packet.NewFrames(1, 2000)[0], From: a.self.Endpoint}
	var datagrams [][]byte
	sealAll := func() {
		out.Reset()
		small.Fill(copy(small.Reset(), ip.Packet()))
		copy(super.Packet(), original.Packet())
		if a.codecs[0].Encode(&out, &small, a.self, b.self) != drop.None || a.codecs[0].Encode(&out, &super, a.self, b.self) != drop.None {
			t.Fatal("not sealed")
		}
	}
	if n := testing.AllocsPerRun(100, sealAll); n != 0 {
		t.Errorf("%v allocations to seal a packet and a super-packet", n)
	}
	for range 120 {
		datagrams = append(datagrams, a.encode(t, 0, b, frame(from1to2(1000)))...)
	}
	i := 0
	if n := testing.AllocsPerRun(100, func() {
		received.Fill(copy(received.Reset(), datagrams[i]))
		i++
		if peer, reason := b.codecs[0].Decode(&received, b.table); peer == nil {
			t.Fatal(reason)
		}
	}); n != 0 {
		t.Errorf("%v allocations to open a datagram", n)
	}
}

// FuzzDecode changes a datagram and holds Decode to its word: nothing is delivered but
// the datagram itself, and that only once.
func FuzzDecode(f *testing.F) {
	a, b := pair(f, 2)
	good := a.encode(f, 1, b, frame(from1to2(64)))[0]
	f.Add([]byte{}, 0, byte(0))
	f.Add([]byte{0x40}, 0, byte(0))
	f.Add(good, 0, byte(0))
	f.Add(good, 20, byte(1))
	f.Add(good[:40], 0, byte(0))
	f.Fuzz(func(t *testing.T, datagram []byte, at int, xor byte) {
		if len(datagram) > 1500 {
			return
		}
		changed := bytes.Clone(datagram)
		if at >= 0 && at < len(changed) {
			changed[at] ^= xor
		}
		a, b := pair(t, 2)
		fresh := a.encode(t, 1, b, frame(from1to2(64)))[0]
		if len(changed) >= 8 { // to a session that there is
			copy(changed[4:8], fresh[4:8])
		}
		_, peer, reason := b.decode(changed, a.addr())
		if peer != nil {
			t.Fatalf("%x is delivered", changed)
		}
		if reason == drop.None && (len(changed) == 0 || changed[0] < 0x40) {
			t.Fatalf("%x disappears without a reason", changed)
		}
		if _, peer, reason := b.decode(fresh, a.addr()); peer == nil {
			t.Fatalf("after %x, an authentic datagram is dropped: %v", changed, reason)
		}
	})
}

func BenchmarkSealSuperPacket(b *testing.B) {
	from, to := pair(b, 1)
	super := superPacket(60_000, 1368)
	original := super.Clone(0)
	var out encap.Batch
	b.SetBytes(60_000)
	b.ReportAllocs()
	for b.Loop() {
		out.Reset()
		copy(super.Packet()[:64], original.Packet())
		from.codecs[0].Encode(&out, &super, from.self, to.self)
	}
}

func TestAnExhaustedKeySealsNothing(t *testing.T) {
	a, b := pair(t, 2)
	a.encode(t, 0, b, frame(from1to2(10)))
	a.encode(t, 1, b, frame(from1to2(10)))
	peer := a.knows(b)
	if peer.Sending().RekeyDue() {
		t.Error("a fresh key is due for rekeying")
	}
	peer.SetCounter(0, sealed.RekeyAfter)
	for _, datagram := range a.encode(t, 0, b, frame(from1to2(10))) {
		if _, _, reason := b.decode(datagram, a.addr()); reason != drop.None {
			t.Errorf("what a key that is due for rekeying seals: %v", reason)
		}
	}
	if !peer.Sending().RekeyDue() {
		t.Error("a rekey that is due is not reported")
	}
	peer.SetCounter(0, sealed.CounterLimit-1)
	var out encap.Batch
	f := frame(from1to2(10))
	if reason := a.codecs[0].Encode(&out, &f, a.self, b.self); reason != drop.NoKeys || out.Len() != 0 {
		t.Errorf("an exhausted key seals: %v", reason)
	}
	a.encode(t, 1, b, frame(from1to2(10))) // another lane has a key of its own
	agree(t, a, b)
	a.encode(t, 0, b, frame(from1to2(10)))
}

// A peer that rotates without a pause must not fill the tables that all peers share.
func TestAPeerHasFewEpochsHoweverFastKeysChange(t *testing.T) {
	a, b := pair(t, 1)
	for range 200 {
		agree(t, a, b)
	}
	if n := len(a.knows(b).Epochs()); n > 16 {
		t.Errorf("%d epochs", n)
	}
	for _, datagram := range a.encode(t, 0, b, frame(from1to2(10))) {
		if _, _, reason := b.decode(datagram, a.addr()); reason != drop.None {
			t.Errorf("what the newest seals: %v", reason)
		}
	}
}

func TestKeyedAreAllPeersWithEpochsAndNoOthers(t *testing.T) {
	var all []*peer.Peer
	for i := range 1000 { // more than a chunk of the sessions has
		all = append(all, &peer.Peer{Key: peer.Fingerprint{byte(i >> 8), byte(i)}})
	}
	peers := sealed.NewPeers()
	expect := func(when string, want int) {
		t.Helper()
		keyed := peers.Keyed()
		if len(keyed) != want {
			t.Errorf("%s %d peers have epochs, want %d", when, len(keyed), want)
		}
		for _, p := range peers.All() {
			if _, ok := keyed[p]; ok != (len(p.Epochs()) > 0) {
				t.Errorf("%s a peer with %d epochs is among them: %v", when, len(p.Epochs()), ok)
			}
		}
	}
	begin := func(some []*peer.Peer) {
		for _, p := range some {
			if _, err := peers.Find(p.Key).Begin(new(sealed.Secrets), p.Endpoint.Addr()); err != nil {
				t.Fatal(err)
			}
		}
	}
	peers.Set(all)
	expect("at first", 0)
	begin(all[:900])
	expect("when epochs have begun, though none is used,", 900)
	begin(all[:300])
	for _, p := range all[:600] {
		peers.Find(p.Key).Epochs()[0].End()
	}
	expect("when some have lost one of one or two", 600)
	peers.Set(all[200:])
	expect("when some peers are gone", 400)
	begin(all[500:700])
	expect("when they have begun again", 500)
}

// inbox keeps the messages that came.
type inbox struct{ from, text string }

func (i *inbox) Receive(from *peer.Peer, message []byte) drop.Reason {
	i.from, i.text = from.Name, string(message)
	return drop.None
}

func TestMessagesAreNoPackets(t *testing.T) {
	ends := newEnds(t, 2, 2)
	a, b := ends[0], ends[1]
	message := []byte("\x01hello")
	if _, err := a.knows(b).Message(message); !errors.Is(err, sealed.ErrNoKeys) {
		t.Errorf("without keys: %v", err)
	}
	agree(t, a, b)
	datagram, err := a.knows(b).Message(message)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(datagram, []byte("hello")) {
		t.Errorf("the message can be read: %x", datagram)
	}
	var in inbox
	for _, codec := range b.codecs {
		codec.Messages = &in
	}
	if _, from, reason := b.decode(bytes.Clone(datagram), a.addr()); from != nil || reason != drop.None || in != (inbox{a.self.Name, string(message)}) {
		t.Errorf("%v, %v, %v", from, reason, in)
	}
	if _, _, reason := b.decode(datagram, a.addr()); reason != drop.Replayed {
		t.Errorf("again: %v", reason)
	}
	if sent, received := a.knows(b).Traffic(), b.knows(a).Traffic(); sent.SentPackets != 0 || received.ReceivedPackets != 0 {
		t.Errorf("a message counts as a packet: %+v, %+v", sent, received)
	}
}

// TestMessagesAndWaitingPacketsShareNoCounter: both are sealed with the key that no lane has, by
// several goroutines.
func TestMessagesAndWaitingPacketsShareNoCounter(t *testing.T) {
	a, b := pair(t, 1)
	var mu sync.Mutex
	seen := map[string]bool{}
	var senders sync.WaitGroup
	for range 4 {
		senders.Go(func() {
			for range 200 {
				datagram, err := a.knows(b).Message([]byte{1})
				mu.Lock()
				if header := string(datagram[:sealed.HeaderLen]); err != nil || seen[header] {
					t.Errorf("the header %x comes again, or %v", header, err)
				} else {
					seen[header] = true
				}
				mu.Unlock()
			}
		})
	}
	senders.Wait()
}
