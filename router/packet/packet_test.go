package packet_test

import (
	"bytes"
	"net/netip"
	"testing"

	"weft/router/packet"
	"weft/router/packet/packettest"
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

// FuzzParse holds Parse to its word: what it accepts lies within the input.
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
	if got := string(f.WithHeadroom(3)); got != "er:packet" {
		t.Errorf("with 3 bytes of headroom: %q", got)
	}
	if f.Virtio != (packet.VirtioHeader{}) {
		t.Error("Reset left the last packet's virtio header")
	}
}
