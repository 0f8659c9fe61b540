package router

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"weft/drop"
	"weft/encap"
	"weft/encap/vxlan"
	"weft/encap/vxlan/vxlantest"
	"weft/fib"
	"weft/packet"
	"weft/packet/packettest"
	"weft/peer"
)

// endless returns the same batch at each Read, and accepts every Write.
type endless struct {
	packets  [][]byte
	frames   []packet.Frame
	received []encap.Received

	super         packet.Frame // read in the packets' place
	space, joined []byte       // what the received share, and what it holds at first
	again         []encap.Received
}

func newEndless(from netip.AddrPort, packets ...[]byte) *endless {
	e := &endless{packets: packets, frames: packet.NewFrames(len(packets), 9000)}
	for range packets {
		e.received = append(e.received, encap.Received{Frame: packet.NewFrames(1, 9000)[0], From: from})
	}
	return e
}

func (e *endless) Read() ([]packet.Frame, error) {
	if e.packets == nil {
		e.frames = append(e.frames[:0], e.super)
	}
	for i, b := range e.packets {
		e.frames[i].Fill(copy(e.frames[i].Reset(), b))
	}
	return e.frames, nil
}

func (e *endless) ReadBatch() ([]encap.Received, error) {
	if e.packets == nil { // their headers were written to
		copy(e.space[:100], e.joined[:100])
		e.again = append(e.again[:0], e.received...)
		return e.again, nil
	}
	for i, b := range e.packets {
		e.received[i].Fill(copy(e.received[i].Reset(), b))
	}
	return e.received, nil
}

func (e *endless) Write(frames []packet.Frame) (int, error) {
	return packettest.Count(frames), nil
}

func (e *endless) WriteBatch(batch *encap.Batch) encap.Sent {
	return encap.Sent{Packets: 64} // what of a batch is forwarded
}

func (e *endless) Takes() (tcp, udp bool) { return true, true }

func (e *endless) Wake() error { return nil }

// fixture is node1's table, a packet of each family from its pod to node2's, and
// one that is dropped.
func fixture(tb testing.TB) (table *atomic.Pointer[fib.Table], other *peer.Peer, packets [][]byte) {
	tb.Helper()
	self := &peer.Peer{Name: "node1", Endpoint: netip.MustParseAddrPort("192.168.77.1:9338"), Prefixes: []netip.Prefix{
		netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:244:1::/64")}}
	other = &peer.Peer{Name: "node2", Endpoint: netip.MustParseAddrPort("192.168.77.2:9338"), Prefixes: []netip.Prefix{
		netip.MustParsePrefix("10.244.2.0/24"), netip.MustParsePrefix("fd00:244:2::/64")}}
	built, err := fib.New(self, []*peer.Peer{other})
	if err != nil {
		tb.Fatal(err)
	}
	table = new(atomic.Pointer[fib.Table])
	table.Store(built)
	for range 32 {
		packets = append(packets,
			packettest.UDP(netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("10.244.2.5"), 1000),
			packettest.UDP(netip.MustParseAddr("fd00:244:1::5"), netip.MustParseAddr("fd00:244:2::5"), 1000))
	}
	return table, other, append(packets, packettest.UDP(netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("10.9.9.9"), 10))
}

func newOutbound(tb testing.TB) *outbound {
	table, _, packets := fixture(tb)
	e := newEndless(netip.AddrPort{}, packets...)
	return &outbound{queue: e, codec: vxlan.New(1), conn: e, table: table, capture: new(atomic.Pointer[Capture]), counters: new(counters)}
}

func newInbound(tb testing.TB) *inbound {
	table, peer, packets := fixture(tb)
	var datagrams [][]byte
	for _, b := range packets[:64] { // from node1 as node2 would encode the answer
		answer := packettest.UDP(netip.MustParseAddr("10.244.2.5"), netip.MustParseAddr("10.244.1.5"), len(b))
		datagrams = append(datagrams, vxlantest.Datagram(answer, peer, table.Load().Self()))
	}
	e := newEndless(peer.Endpoint, append(datagrams, []byte("garbage"))...)
	in := &inbound{conn: e, codec: vxlan.New(1), queue: e, table: table, capture: new(atomic.Pointer[Capture]), counters: new(counters)}
	return in
}

func TestABatchAllocatesNothing(t *testing.T) {
	o := newOutbound(t)
	in := newInbound(t)
	for name, batch := range map[string]func() error{"outbound": o.batch, "inbound": in.batch} {
		if allocs := testing.AllocsPerRun(100, func() { _ = batch() }); allocs != 0 {
			t.Errorf("%s: %v allocations in a batch", name, allocs)
		}
	}
	if sent, written := o.counters.packets.Load(), in.counters.packets.Load(); sent != 64*101 || written != 64*101 {
		t.Errorf("%d packets sent and %d written in 101 batches of 64 that are forwarded", sent, written)
	}
	if o.counters.drops[drop.NoRoute].Load() != 101 || in.counters.drops[drop.Truncated].Load() != 101 {
		t.Error("the packet that is not forwarded is not counted once a batch")
	}
}

func BenchmarkOutboundPacket(b *testing.B) {
	o := newOutbound(b)
	c := o.counters
	b.ReportAllocs()
	for b.Loop() {
		_ = o.batch()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(c.packets.Load()), "ns/packet")
}

func BenchmarkInboundPacket(b *testing.B) {
	in := newInbound(b)
	c := in.counters
	b.ReportAllocs()
	for b.Loop() {
		_ = in.batch()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(c.packets.Load()), "ns/packet")
}

// superOutbound reads one super-packet of 43 segments, as the TUN device hands it over.
func superOutbound(tb testing.TB) *outbound {
	tb.Helper()
	o := newOutbound(tb)
	o.queue = &endless{super: superPacket("10.244.1.5", "10.244.2.5")}
	return o
}

func superPacket(from, to string) packet.Frame {
	p := packettest.TCP{
		From: netip.AddrPortFrom(netip.MustParseAddr(from), 40000), To: netip.AddrPortFrom(netip.MustParseAddr(to), 80),
		Flags: packettest.ACK | packettest.PSH, Window: 500, Options: []byte{1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9},
		TTL: 63, DontFragment: true, Payload: make([]byte, 43*1368-100),
	}
	return p.Super(1368)
}

// superInbound receives what superOutbound's peer would send, joined by GRO.
func superInbound(tb testing.TB) *inbound {
	tb.Helper()
	in := newInbound(tb)
	table, peer, _ := fixture(tb)
	f := superPacket("10.244.2.5", "10.244.1.5")
	var out encap.Batch
	vxlan.New(1).Encode(&out, &f, peer, table.Load().Self())
	joined := packet.NewFrames(1, packet.MaxSize)[0]
	space, e := joined.Reset(), &endless{}
	for _, datagram := range out.Datagrams() {
		start := len(e.joined)
		e.joined = append(e.joined, datagram...)
		copy(space[start:], datagram)
		e.received = append(e.received, encap.Received{Frame: joined.View(start, len(e.joined)), From: peer.Endpoint})
	}
	e.space = space
	in.conn, in.queue = e, e
	return in
}

// A super-packet is one from the device to the socket, and from the socket to the device.
func TestSuperPacketStaysWhole(t *testing.T) {
	o, in := superOutbound(t), superInbound(t)
	if err := errors.Join(o.batch(), in.batch()); err != nil {
		t.Fatal(err)
	}
	if o.out.Len() != 1 || in.counters.superPackets.Load() != 1 || in.counters.packets.Load() != 43 {
		t.Errorf("%d messages sent; %d super-packets of %d packets written", o.out.Len(), in.counters.superPackets.Load(), in.counters.packets.Load())
	}
	for name, batch := range map[string]func() error{"outbound": o.batch, "inbound": in.batch} {
		if allocs := testing.AllocsPerRun(100, func() { _ = batch() }); allocs != 0 {
			t.Errorf("%s: %v allocations for a super-packet", name, allocs)
		}
	}
}

func BenchmarkOutboundSuperPacket(b *testing.B) {
	o := superOutbound(b)
	for b.Loop() {
		_ = o.batch()
	}
}

func BenchmarkInboundSuperPacket(b *testing.B) {
	in := superInbound(b)
	for b.Loop() {
		_ = in.batch()
	}
}

func TestALaneSurvivesBadReadsButNotABrokenDevice(t *testing.T) {
	bad := errors.New("bad frame")
	c, reads, stopping := new(counters), 0, atomic.Bool{}
	err := repeat(func() error {
		if reads++; reads == maxFailures { // one good read in between
			return nil
		}
		return bad
	}, c, &stopping)
	if !errors.Is(err, bad) || !strings.Contains(err.Error(), "in a row") || reads != 2*maxFailures {
		t.Errorf("after %d reads: %v", reads, err)
	}
	if got := c.drops[drop.Unreadable].Load(); got != 2*maxFailures-1 {
		t.Errorf("%d reads are counted", got)
	}

	reads = 0
	if err := repeat(func() error { reads++; return os.ErrClosed }, c, &stopping); !errors.Is(err, os.ErrClosed) || reads != 1 {
		t.Errorf("a closed device is read %d times: %v", reads, err)
	}
}
