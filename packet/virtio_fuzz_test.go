package packet_test

import (
	"bytes"
	"math"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"weft/packet"
	"weft/packet/packettest"
)

// FuzzVirtio takes what a TUN device might hand over, a virtio-net header and a packet
// that need not fit each other, the way of an outbound packet: whatever Cut and
// Complete accept, they finish within the packet.
func FuzzVirtio(f *testing.F) {
	for _, super := range superPackets() {
		v := super.Virtio
		for _, contradiction := range []packet.VirtioHeader{
			v,
			{},
			{Flags: v.Flags, CsumStart: v.CsumStart, CsumOffset: v.CsumOffset},
			{Flags: v.Flags, GSOType: v.GSOType, GSOSize: 0, CsumStart: v.CsumStart, CsumOffset: v.CsumOffset},
			{Flags: v.Flags, GSOType: v.GSOType, GSOSize: 1, CsumStart: v.CsumStart, CsumOffset: v.CsumOffset},
			{Flags: v.Flags, GSOType: v.GSOType, GSOSize: math.MaxUint16, CsumStart: v.CsumStart, CsumOffset: v.CsumOffset},
			{Flags: v.Flags, GSOType: v.GSOType, GSOSize: v.GSOSize, CsumStart: math.MaxUint16, CsumOffset: v.CsumOffset},
			{Flags: v.Flags, CsumStart: math.MaxUint16, CsumOffset: math.MaxUint16},
		} {
			header := make([]byte, packet.VirtioRoom)
			contradiction.Put(header)
			f.Add(header, super.Packet())
		}
	}
	fragment := tcp(a4, b4, 3000).Super(1000)
	fragment.Packet()[7] = 10
	header := make([]byte, packet.VirtioRoom)
	fragment.Virtio.Put(header)
	f.Add(header, fragment.Packet())
	f.Add(make([]byte, packet.VirtioRoom), []byte{})
	frame, piece := packet.NewFrames(1, packet.MaxSize), packet.NewFrames(1, packet.MaxSize)
	f.Fuzz(func(t *testing.T, header, b []byte) {
		if len(header) < packet.VirtioRoom || len(b) > packet.MaxSize {
			return // a driver hands over neither
		}
		received := fenced(&frame[0], packet.ParseVirtioHeader(header), b)
		h, ok := packet.Parse(received.Packet())
		if !ok {
			return
		}
		if received.Virtio.GSOType == 0 {
			received.Trim(h.Len)
			finishes(t, received)
			completes(t, received)
			expectFence(t, received, len(b))
			return
		}
		if received.Complete() {
			t.Fatal("Complete says that a super-packet is done")
		}
		partial, ok := received.Cut(false)
		if complete, both := received.Cut(true); ok != both || complete.Count != partial.Count {
			t.Fatalf("Cut makes %d segments with complete checksums and %d without", complete.Count, partial.Count)
		} else if ok {
			segments(t, received, &partial, &complete, &piece[0])
		}
		if expectFence(t, received, len(b)); !bytes.Equal(received.Packet(), b) {
			t.Fatal("cutting changes the packet")
		}
	})
}

// superPackets are valid ones of each kind.
func superPackets() []*packet.Frame {
	var all []*packet.Frame
	for _, tc := range []struct {
		from, to  netip.Addr
		transport uint16
	}{{a4, b4, 20}, {a6, b6, 40}} {
		super, odd := tcp(tc.from, tc.to, 3000).Super(1000), tcp(tc.from, tc.to, 333).Super(7)
		udp := packet.NewFrames(1, packet.MaxSize)[0]
		udp.Fill(copy(udp.Reset(), packettest.UDP(tc.from, tc.to, 2500)))
		udp.Virtio = packet.VirtioHeader{Flags: unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, GSOType: unix.VIRTIO_NET_HDR_GSO_UDP_L4,
			GSOSize: 1000, CsumStart: tc.transport, CsumOffset: 6}
		all = append(all, &super, &odd, &udp)
	}
	for _, extensions := range [][]byte{{0}, {60}, {0, 43, 60}, bytes.Repeat([]byte{60}, 30)} {
		p := tcp(a6, b6, 3000)
		p.Extensions = extensions
		super := p.Super(1000)
		all = append(all, &super)
	}
	all = append(all, tunnelled()...)
	return all
}

var fence = bytes.Repeat([]byte{0xa5}, packet.Headroom+packet.MaxSize)

// fenced makes b the frame's packet, among bytes that must stay what they are.
func fenced(f *packet.Frame, v packet.VirtioHeader, b []byte) *packet.Frame {
	space := f.Reset()
	f.Fill(copy(space, b))
	f.Virtio = v
	copy(f.WithRoom(packet.Headroom, 0)[:packet.Headroom], fence)
	copy(space[len(b):], fence)
	return f
}

// expectFence looks at the bytes around the packet, which had n bytes.
func expectFence(t *testing.T, f *packet.Frame, n int) {
	t.Helper()
	all := f.WithRoom(packet.Headroom, 0)[:packet.Headroom+packet.MaxSize]
	if !bytes.HasPrefix(fence, all[:packet.Headroom]) || !bytes.HasPrefix(fence, all[packet.Headroom+n:]) {
		t.Fatal("bytes around the packet were written")
	}
}

// finishes expects of Finish that what a receiver makes of the packet, which does not see
// what the kernel left to do, is the packet that a card would have sent.
func finishes(t *testing.T, f *packet.Frame) {
	t.Helper()
	sent, card := f.Clone(0), f.Clone(0)
	if sent.Finish() != card.Complete() {
		t.Fatalf("Finish and Complete differ on whether %+v can be done", f.Virtio)
	}
	if card.Virtio != (packet.VirtioHeader{}) {
		return // it can't
	}
	if sent, card := receive(t, &sent), receive(t, &card); !bytes.Equal(sent, card) {
		t.Fatalf("of %+v in\n%.200x a receiver makes\n%.200x, of what a card sends\n%.200x", f.Virtio, f.Packet(), sent, card)
	}
}

// receive returns what a receiver's kernel makes of a packet: a wrong checksum may look
// partial too.
func receive(t *testing.T, f *packet.Frame) []byte {
	t.Helper()
	received := f.Clone(0)
	received.Virtio, _ = packet.PartialChecksum(received.Packet())
	if !received.Complete() {
		t.Fatalf("a receiver can't complete the checksum: %+v", received.Virtio)
	}
	return received.Packet()
}

// completes expects of Complete that it writes the two bytes of a checksum, or nothing.
func completes(t *testing.T, f *packet.Frame) {
	t.Helper()
	n, before, v := len(f.Packet()), bytes.Clone(f.Packet()), f.Virtio
	done := f.Complete()
	after := f.Packet()
	if done != (f.Virtio == packet.VirtioHeader{}) || len(after) != n {
		t.Fatalf("Complete = %v leaves %+v to do in %d of %d bytes", done, f.Virtio, len(after), n)
	}
	if done && v.Flags == unix.VIRTIO_NET_HDR_F_NEEDS_CSUM {
		field := int(v.CsumStart) + int(v.CsumOffset)
		copy(before[field:], after[field:field+2])
	}
	if !bytes.Equal(before, after) {
		t.Fatalf("Complete = %v of %+v changes other bytes than the checksum's", done, v)
	}
}

// segments expects of a super-packet's segments that they are packets, and together
// carry its payload. piece is a frame to use.
func segments(t *testing.T, f *packet.Frame, partial, complete *packet.Segments, piece *packet.Frame) {
	t.Helper()
	v, n, b := f.Virtio, partial.HeaderLen, f.Packet()
	headers := make([]byte, 3*n)
	left, next, whole := headers[:n:n], headers[n:2*n:2*n], headers[2*n:]
	payload := b[n:]
	for i := range partial.Count {
		part := partial.Payload(i)
		if len(part) == 0 || len(part) > int(v.GSOSize) || !bytes.HasPrefix(payload, part) {
			t.Fatalf("segment %d of %d has %d bytes, which are not the next of the payload", i, partial.Count, len(part))
		}
		payload = payload[len(part):]
		partial.Header(left, i)
		complete.Header(whole, i)
		if i == 0 {
			copy(next, left)
		} else if partial.Next(next, i); !bytes.Equal(next, left) {
			t.Fatalf("Next makes of segment %d\n%x, Header makes\n%x", i, next, left)
		}
		space := piece.Reset()
		piece.Fill(copy(space, left) + copy(space[n:], part))
		if h, ok := packet.Parse(piece.Packet()); !ok || h.Len != piece.Len() {
			t.Fatalf("segment %d of %d bytes is no packet, or one of %d: %x", i, piece.Len(), h.Len, left)
		}
		sent := receive(t, piece)
		copy(piece.Packet(), whole)
		if card := receive(t, piece); !bytes.Equal(sent, card) {
			t.Fatalf("segment %d is received as\n%x, and cut complete as\n%x", i, sent[:n], card[:n])
		}
	}
	if len(payload) > 0 {
		t.Fatalf("the last %d bytes of the payload are in no segment", len(payload))
	}
}
