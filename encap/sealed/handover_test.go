package sealed_test

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"weft/drop"
	"weft/encap"
	"weft/encap/sealed"
	"weft/packet/packettest"
	"weft/peer"
)

// from2to1 is a packet of a pod of node2 to one of node1.
func from2to1(n int) []byte {
	return packettest.UDP(netip.MustParseAddr("10.244.2.3"), netip.MustParseAddr("10.244.1.2"), n)
}

// successor is a process that takes over from e: it knows the same peers, and has no keys yet.
func (e *end) successor(peers ...*end) *end {
	s := &end{self: e.self, peers: sealed.NewPeers(), table: e.table, lanes: e.lanes}
	var all []*peer.Peer
	for _, p := range peers {
		all = append(all, p.self)
	}
	s.peers.Set(all)
	for lane := range s.lanes {
		s.codecs = append(s.codecs, sealed.NewCodec(s.peers, s, lane, s.lanes))
	}
	return s
}

// handOver moves all keys of one process to another, which may be the same.
func handOver(t *testing.T, from, to *end) {
	t.Helper()
	if _, err := to.peers.Import(from.peers.Export()); err != nil {
		t.Fatal(err)
	}
}

// TestKeysGoOnInTheNextProcess: through several processes, no counter is used twice, each datagram
// is taken once and none is lost, whichever epoch it is of.
func TestKeysGoOnInTheNextProcess(t *testing.T) {
	ends := newEnds(t, 3, 2)
	a, b, c := ends[0], ends[1], ends[2]
	agree(t, a, c)
	seen := map[string]bool{}
	var toB, toA [][]byte
	exchange := func() {
		t.Helper()
		for lane := range 2 {
			for _, d := range slices.Concat(a.encode(t, lane, b, frame(from1to2(10))), a.encode(t, lane, b, superPacket(5000, 1000))) {
				if header := string(d[:sealed.HeaderLen]); seen[header] {
					t.Fatalf("two datagrams have the header %x", header)
				} else {
					seen[header] = true
				}
				toB = append(toB, d)
			}
			toA = append(toA, b.encode(t, lane, a, frame(from2to1(10)))...)
		}
	}
	accepted := func(by, from *end, datagrams [][]byte) (n int) {
		for _, d := range datagrams {
			if _, p, _ := by.decode(d, from.addr()); p != nil {
				n++
			}
		}
		return n
	}
	for epoch := range 3 {
		agree(t, a, b)
		for process := range 3 {
			exchange()
			late := toA[len(toA)-1]
			if n := accepted(a, b, toA[:len(toA)-1]); n != 1 {
				t.Errorf("epoch %d, process %d: of 1 new datagram and all earlier ones, %d are accepted", epoch, process, n)
			}
			next := a
			if process > 0 { // one process takes its own back
				next = a.successor(b, c)
			}
			handOver(t, a, next)
			a = next
			exchange()
			if n := accepted(a, b, append([][]byte{late}, toA...)); n != 3 {
				t.Errorf("epoch %d, process %d: of 1 that was on the way, 2 new ones and all earlier ones, %d are accepted", epoch, process, n)
			}
			if n := accepted(a, b, toA); n != 0 {
				t.Errorf("epoch %d, process %d: %d are accepted again", epoch, process, n)
			}
		}
	}
	if n := accepted(b, a, toB); n != len(toB) {
		t.Errorf("b accepts %d of %d", n, len(toB))
	}
	if len(a.encode(t, 0, c, frame(from1to2(1)))) != 1 {
		t.Error("the keys with the third node are gone")
	}
}

func TestAnExportLeavesNothingBehind(t *testing.T) {
	a, b := pair(t, 1)
	sent := b.encode(t, 0, a, frame(from2to1(10)))[0]
	epoch := a.knows(b).Sending()
	export := a.peers.Export()
	if epoch.Secrets() != nil || epoch.Holds(0) || epoch.Holds(31) {
		t.Error("the old process has the keys still")
	}
	if _, _, reason := a.decode(sent, b.addr()); reason != drop.UnknownIndex {
		t.Errorf("it opens a datagram: %v", reason)
	}
	var out encap.Batch
	f := frame(from1to2(10))
	if reason := a.codecs[0].Encode(&out, &f, a.self, b.self); reason != drop.None || out.Len() != 0 {
		t.Errorf("it seals: %v, %d datagrams", reason, out.Len())
	}
	epoch.Use(func([]byte) { t.Error("it seals what waited") })
	if again := a.peers.Export(); len(again) >= len(export) {
		t.Error("it exports keys a second time")
	}
}

// TestLostWhileWaitingCounts: packets that wait for keys are not handed over, but what has become of
// packets is.
func TestLostWhileWaitingCounts(t *testing.T) {
	ends := newEnds(t, 3, 1)
	a, b, c := ends[0], ends[1], ends[2]
	for range 3 {
		a.encode(t, 0, b, frame(from1to2(10)))
	}
	agree(t, a, b)
	for range 2 {
		a.encode(t, 0, c, frame(from1to2(10)))
	}
	next := a.successor(b, c)
	handOver(t, a, next)
	next.peers.Restore(a.peers.Waited())
	if got := next.peers.Waited(); got != (sealed.Waited{Packets: 3, Bytes: 3 * 38, Lost: 2}) {
		t.Errorf("Waited = %+v", got)
	}
	if sent := agree(t, next, c); len(sent) != 0 {
		t.Errorf("%d packets wait still", len(sent))
	}
}

// A node that is no peer any more when the next process begins has no keys with it.
func TestOnlyPeersGetTheirKeysBack(t *testing.T) {
	ends := newEnds(t, 3, 1)
	a, b, c := ends[0], ends[1], ends[2]
	agree(t, a, b)
	agree(t, a, c)
	fromC := c.encode(t, 0, a, frame(from2to1(10)))[0]
	next := a.successor(b)
	n, err := next.peers.Import(a.peers.Export())
	if n != 1 || err != nil {
		t.Errorf("Import = %d, %v", n, err)
	}
	if len(next.peers.Keyed()) != 1 || next.knows(b).Sending() == nil {
		t.Error("the peer has no keys")
	}
	if _, _, reason := next.decode(fromC, c.addr()); reason != drop.UnknownIndex && reason != drop.NotAuthentic {
		t.Errorf("a datagram of the node that is gone: %v", reason)
	}
}

func TestADamagedExportGivesNoKeys(t *testing.T) {
	a, b := pair(t, 2)
	_, _, _ = a.decode(b.encode(t, 1, a, frame(from2to1(10)))[0], b.addr())
	export := a.peers.Export()
	refused := func(what string, damaged []byte, want string) {
		t.Helper()
		next := a.successor(b)
		if _, err := next.peers.Import(damaged); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: Import = %v", what, err)
		}
		if len(next.peers.Keyed()) != 0 || len(next.knows(b).Epochs()) != 0 {
			t.Errorf("%s: there are keys", what)
		}
	}
	for n := range len(export) - 1 {
		if n != 0 { // nothing but a version is an export without peers
			refused("cut", export[:n+1], "the export is damaged")
		}
	}
	refused("nothing", nil, "the export is damaged")
	refused("another version", append([]byte{2}, export[1:]...), "version 2 of their layout, and this weftd knows version 1")
	refused("twice", append(bytes.Clone(export), export[1:]...), "two sessions have one number")
	if _, err := a.successor(b).peers.Import(export); err != nil {
		t.Errorf("after all this, the export itself: %v", err)
	}
}

func FuzzImport(f *testing.F) {
	a, b := pair(f, 2)
	_, _, _ = a.decode(b.encode(f, 1, a, frame(from2to1(10)))[0], b.addr())
	f.Add(a.peers.Export())
	f.Fuzz(func(t *testing.T, export []byte) {
		next := a.successor(b)
		if _, err := next.peers.Import(export); err != nil && len(next.peers.Keyed()) != 0 {
			t.Errorf("Import = %v, and there are keys", err)
		}
	})
}
