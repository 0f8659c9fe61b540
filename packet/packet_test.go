package packet_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"weft/packet"
	"weft/packet/packettest"
)

var (
	a4, b4 = netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("10.244.2.3")
	a6, b6 = netip.MustParseAddr("fd00:244:1::2"), netip.MustParseAddr("fd00:244:2::3")
)

func TestParseReadsBothFamilies(t *testing.T) {
	for _, tc := range []struct{ from, to netip.Addr }{{a4, b4}, {a6, b6}} {
		b := packettest.UDP(tc.from, tc.to, 100)
		h, ok := packet.Parse(b)
		if want := (packet.Header{Source: tc.from, Destination: tc.to, Len: len(b)}); !ok || h != want {
			t.Errorf("Parse = %+v, %v; want %+v", h, ok, want)
		}
		if packet.IsIPv4(b) != tc.from.Is4() {
			t.Errorf("IsIPv4 = %v for a packet from %s", !tc.from.Is4(), tc.from)
		}
	}
}

func TestParseLeavesTrailingBytesOut(t *testing.T) {
	for _, b := range [][]byte{packettest.UDP(a4, b4, 0), packettest.UDP(a6, b6, 0)} {
		padded := append(bytes.Clone(b), make([]byte, 18)...) // as Ethernet pads short frames
		if h, ok := packet.Parse(padded); !ok || h.Len != len(b) {
			t.Errorf("Parse of %d bytes and 18 of padding = %d, %v", len(b), h.Len, ok)
		}
	}
}

func TestParseRefusesContradictions(t *testing.T) {
	edit := func(b []byte, at int, value byte) []byte {
		b = bytes.Clone(b)
		b[at] = value
		return b
	}
	v4, v6 := packettest.UDP(a4, b4, 4), packettest.UDP(a6, b6, 4)
	for name, b := range map[string][]byte{
		"nothing":                                 nil,
		"an IPv4 header cut short":                v4[:19],
		"an IPv6 header cut short":                v6[:39],
		"another IP version":                      edit(v4, 0, 0x55),
		"an IPv4 header of 16 bytes":              edit(v4, 0, 0x44),
		"an IPv4 length beyond the packet":        edit(v4, 2, 0xff),
		"an IPv4 length below that of its header": edit(v4, 3, 19),
		"IPv4 options beyond the length":          edit(v4, 0, 0x4f),
		"an IPv6 length beyond the packet":        edit(v6, 4, 0xff),
	} {
		if h, ok := packet.Parse(b); ok {
			t.Errorf("Parse accepts %s: %+v", name, h)
		}
	}
}

// FuzzParse holds Parse to its word: what it accepts lies within the input, and
// what PartialChecksum finds in it can be done.
func FuzzParse(f *testing.F) {
	f.Add(packettest.UDP(a4, b4, 4))
	f.Add(packettest.UDP(a6, b6, 4))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := packet.Parse(b)
		if !ok {
			return
		}
		if h.Len < 20 || h.Len > len(b) {
			t.Errorf("Len = %d of %d bytes", h.Len, len(b))
		}
		if !h.Source.IsValid() || h.Source.Is4() != h.Destination.Is4() || h.Source.Is4() != packet.IsIPv4(b) {
			t.Errorf("addresses %v and %v contradict the version %d", h.Source, h.Destination, b[0]>>4)
		}
		if len(b) > packet.MaxSize {
			return
		}
		frame := packet.NewFrames(1, packet.MaxSize)[0]
		frame.Fill(copy(frame.Reset(), b[:h.Len]))
		virtio, partial := packet.PartialChecksum(frame.Packet())
		frame.Virtio = virtio
		if !frame.Complete() {
			t.Errorf("what PartialChecksum found can't be done: %+v", virtio)
		}
		if changed := !bytes.Equal(frame.Packet(), b[:h.Len]); changed && !partial {
			t.Error("a packet with nothing left to do is changed")
		}
	})
}

func TestFrameMovesItsEdgesWithoutCopying(t *testing.T) {
	f := packet.NewFrames(1, 1500)[0]
	f.Virtio.Flags = 1
	copy(f.Reset(), "packet and padding")
	f.Fill(len("packet and padding"))
	f.Trim(len("packet"))
	first := &f.Packet()[0]
	copy(f.Push(7), "header:")
	if got := string(f.Packet()); got != "header:packet" || f.Len() != len(got) {
		t.Errorf("after Push: %q, length %d", got, f.Len())
	}
	f.Pull(7)
	if got := string(f.Packet()); got != "packet" || &f.Packet()[0] != first {
		t.Errorf("after Pull: %q", got)
	}
	if got := string(f.WithRoom(3, 0)); got != "er:packet" {
		t.Errorf("with 3 bytes of headroom: %q", got)
	}
	if f.Virtio != (packet.VirtioHeader{}) {
		t.Error("Reset left the last packet's virtio header")
	}
}

// partial returns a packet as a kernel leaves it that expects its card to complete
// the checksum, and the same packet complete.
func partial(t *testing.T, from, to netip.Addr, n int) (packet.Frame, []byte) {
	t.Helper()
	complete := packettest.UDP(from, to, n)
	headerLen := len(complete) - n - 8
	f := packet.NewFrames(1, 2000)[0]
	f.Fill(copy(f.Reset(), complete))
	pseudo := uint32(17) + uint32(n+8)
	addrs := append(from.AsSlice(), to.AsSlice()...)
	for i := 0; i < len(addrs); i += 2 {
		pseudo += uint32(binary.BigEndian.Uint16(addrs[i:]))
	}
	for pseudo > 0xffff {
		pseudo = pseudo>>16 + pseudo&0xffff
	}
	binary.BigEndian.PutUint16(f.Packet()[headerLen+6:], uint16(pseudo))
	return f, complete
}

func TestPartialChecksumIsCompleted(t *testing.T) {
	for _, tc := range []struct{ from, to netip.Addr }{{a4, b4}, {a6, b6}} {
		for n := range 1500 {
			f, complete := partial(t, tc.from, tc.to, n)
			if _, found := packet.PartialChecksum(complete); found {
				// Not impossible, but not with these payloads.
				t.Errorf("a complete checksum over %d bytes is taken for a partial one", n)
			}
			virtio, found := packet.PartialChecksum(f.Packet())
			f.Virtio = virtio
			if !found || !f.Complete() || f.Virtio != (packet.VirtioHeader{}) {
				t.Fatalf("%s, %d bytes: found %v, left to do: %+v", tc.from, n, found, f.Virtio)
			}
			if !bytes.Equal(f.Packet(), complete) {
				t.Fatalf("%s, %d bytes: completed to %x, want %x", tc.from, n, f.Packet(), complete)
			}
		}
	}
}

func TestAWrongChecksumStaysWrong(t *testing.T) {
	b := packettest.UDP(a4, b4, 100)
	b[26] ^= 0x40
	if virtio, found := packet.PartialChecksum(b); found {
		t.Errorf("a wrong checksum would be repaired: %+v", virtio)
	}
}

func TestOnlyWholeTCPAndUDPHavePartialChecksums(t *testing.T) {
	f, _ := partial(t, a4, b4, 100)
	for name, change := range map[string]func(b []byte) []byte{
		"a first fragment":   func(b []byte) []byte { b[6] = 0x20; return b },
		"a later fragment":   func(b []byte) []byte { b[7] = 10; return b },
		"another protocol":   func(b []byte) []byte { b[9] = 132; return b },
		"UDP cut short":      func(b []byte) []byte { return b[:27] },
		"no checksum at all": func(b []byte) []byte { b[26], b[27] = 0, 0; return b },
	} {
		if virtio, found := packet.PartialChecksum(change(bytes.Clone(f.Packet()))); found {
			t.Errorf("%s: %+v", name, virtio)
		}
	}
}

func TestCompleteRefusesWhatItCannotDo(t *testing.T) {
	for name, virtio := range map[string]packet.VirtioHeader{
		"a super-packet":                     {Flags: 1, GSOType: 1, GSOSize: 1400, CsumStart: 20, CsumOffset: 16},
		"a checksum behind the packet":       {Flags: 1, CsumStart: 120, CsumOffset: 16},
		"a checksum that starts behind it":   {Flags: 1, CsumStart: 65535, CsumOffset: 65535},
		"flags that it does not know":        {Flags: 4},
		"a checksum in the IP header":        {Flags: 1, CsumStart: 8, CsumOffset: 6},
		"a gso_size without a type":          {GSOSize: 1400},
		"a checksum one byte of which is in": {Flags: 1, CsumStart: 130, CsumOffset: 5},
	} {
		f, _ := partial(t, a4, b4, 108) // 136 bytes
		f.Virtio = virtio
		if f.Complete() {
			t.Errorf("%s: Complete says it is done", name)
		}
	}
}
