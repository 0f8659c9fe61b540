package packet_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"weft/packet"
	"weft/packet/packettest"
)

// tunnelled are packets as the kernel hands them over that a pod's tunnel made.
func tunnelled() []*packet.Frame {
	var all []*packet.Frame
	eachTunnel(func(_ string, f packet.Frame, _ []byte) { all = append(all, &f) })
	return all
}

// eachTunnel yields a packet of each kind, size and family of tunnel, as a kernel hands it
// over and as a card sends it.
func eachTunnel(yield func(name string, f packet.Frame, card []byte)) {
	for _, name := range packettest.Tunnels() {
		for _, outer := range []struct{ from, to netip.Addr }{{a4, b4}, {a6, b6}} {
			for _, inner := range []struct{ from, to netip.Addr }{{a4, b4}, {a6, b6}} {
				for _, size := range []int{0, 1, 1001} {
					f, card := packettest.Tunnel(name, outer.from, outer.to, tcp(inner.from, inner.to, size))
					yield(fmt.Sprintf("%s from %s of %s, %d bytes", name, outer.from, inner.from, size), f, card)
				}
			}
		}
	}
}

// A receiver recognises a partial checksum only where the outermost TCP or UDP header
// follows the IP header. Whatever else the kernel left to do is done before sending.
func TestInnerChecksumsAreFinished(t *testing.T) {
	eachTunnel(func(name string, f packet.Frame, card []byte) {
		if !f.Finish() || f.Virtio != (packet.VirtioHeader{}) || !bytes.Equal(f.Packet(), card) {
			t.Errorf("%s: left %+v in\n%.200x, a card sends\n%.200x", name, f.Virtio, f.Packet(), card)
		}
	})
}

func TestOrdinaryChecksumsStayPartial(t *testing.T) {
	for _, tc := range []struct{ from, to netip.Addr }{{a4, b4}, {a6, b6}} {
		f, _ := partial(t, tc.from, tc.to, 100)
		f.Virtio, _ = packet.PartialChecksum(f.Packet())
		v, want := f.Virtio, bytes.Clone(f.Packet())
		if !f.Finish() || f.Virtio != v || !bytes.Equal(f.Packet(), want) {
			t.Errorf("%s: left %+v in %.200x", tc.from, f.Virtio, f.Packet())
		}
		f.Packet()[len(f.Packet())-101] ^= 1 // in the field: no pseudo header's sum
		odd := f.Clone(0)
		if !f.Finish() || f.Virtio != (packet.VirtioHeader{}) || !odd.Complete() || !bytes.Equal(f.Packet(), odd.Packet()) {
			t.Errorf("%s: a start value that no receiver recognises is left in %.200x", tc.from, f.Packet())
		}
	}
}

// SCTP's checksum is a CRC-32C: the Internet checksum would spoil it. The kernel leaves
// it to no TUN device (NETIF_F_SCTP_CRC).
func TestSCTPIsNeverSummed(t *testing.T) {
	for _, tc := range []struct{ from, to netip.Addr }{{a4, b4}, {a6, b6}} {
		b := packettest.UDP(tc.from, tc.to, 100)
		transport, protocol := 20, &b[9]
		if tc.from.Is6() {
			transport, protocol = 40, &b[6]
		}
		*protocol = 132
		binary.LittleEndian.PutUint32(b[transport+8:], crc32.Checksum(b[transport:], crc32.MakeTable(crc32.Castagnoli)))
		f := packet.NewFrames(1, 2000)[0]
		f.Fill(copy(f.Reset(), b))
		if !f.Finish() || !bytes.Equal(f.Packet(), b) {
			t.Errorf("%s: a complete packet becomes %.200x", tc.from, f.Packet())
		}
		if v, found := packet.PartialChecksum(b); found {
			t.Errorf("%s: taken for partial: %+v", tc.from, v)
		}
		for _, offset := range []uint16{6, 8, 16} {
			f.Virtio = packet.VirtioHeader{Flags: unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, CsumStart: uint16(transport), CsumOffset: offset}
			if f.Finish() || f.Complete() || !bytes.Equal(f.Packet(), b) {
				t.Errorf("%s: summed at %d: %.200x", tc.from, offset, f.Packet())
			}
		}
	}
}

func TestCutBehindExtensionHeaders(t *testing.T) {
	for _, extensions := range [][]byte{{0}, {60}, {0, 43, 60}, bytes.Repeat([]byte{60}, 30)} {
		for _, complete := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v complete %v", extensions, complete), func(t *testing.T) {
				p := tcp(a6, b6, 3500)
				p.Extensions = extensions
				segments := cut(t, p.Super(1000), complete)
				if len(segments) != 4 {
					t.Fatalf("%d segments", len(segments))
				}
				for i, got := range segments {
					want := p
					want.Seq += uint32(i * 1000)
					want.Payload = p.Payload[i*1000 : min((i+1)*1000, len(p.Payload))]
					if !bytes.Equal(got, want.Bytes()) { // complete in any case: no receiver recognises it
						t.Errorf("segment %d is\n%.200x, want\n%.200x", i, got, want.Bytes())
					}
				}
			})
		}
	}
}

// In place, segments' headers are written over the segment before.
func TestSegmentsInPlaceAreTheSame(t *testing.T) {
	for _, extensions := range [][]byte{nil, {0}, bytes.Repeat([]byte{60}, 30)} {
		p := tcp(a6, b6, 3500)
		p.Extensions = extensions
		for _, size := range []int{100, 1000} {
			want := cut(t, p.Super(size), false)
			f := p.Super(size)
			s, _ := f.Cut(false)
			s.KeepHeaders(make([]byte, packet.MaxHeaders))
			var before []byte
			for i := range s.Count {
				b := s.InPlace(i)
				if i == 0 {
					s.Header(b[:s.HeaderLen], 0)
				} else {
					copy(b[:s.HeaderLen], before)
					s.Next(b[:s.HeaderLen], i)
				}
				before = b[:s.HeaderLen]
				if !bytes.Equal(b, want[i]) {
					t.Fatalf("%v, segment %d of %d bytes:\n%.200x, want\n%.200x", extensions, i, size, b, want[i])
				}
			}
		}
	}
}
