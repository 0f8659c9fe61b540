package packet_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"weft/packet"
	"weft/packet/packettest"
)

var timestamps = []byte{1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9}

func tcp(from, to netip.Addr, payload int) packettest.TCP {
	p := packettest.TCP{
		From: netip.AddrPortFrom(from, 40000), To: netip.AddrPortFrom(to, 80),
		Seq: 0xfffffff0, Ack: 77, Flags: packettest.ACK, Window: 500, Options: timestamps,
		TTL: 63, ID: 0xfffe, DontFragment: true, Payload: make([]byte, payload),
	}
	for i := range p.Payload {
		p.Payload[i] = byte(i * 7)
	}
	return p
}

// cut returns the segments of a super-packet as packets.
func cut(t testing.TB, f packet.Frame, complete bool) [][]byte {
	t.Helper()
	s, ok := f.Cut(complete)
	if !ok {
		t.Fatalf("Cut refuses %+v", f.Virtio)
	}
	var segments [][]byte
	for i := range s.Count {
		b := make([]byte, s.HeaderLen)
		s.Header(b, i)
		if i > 0 {
			next := bytes.Clone(segments[i-1][:s.HeaderLen])
			if s.Next(next, i); !bytes.Equal(next, b) {
				t.Fatalf("Next makes of segment %d\n%x, Header makes\n%x", i, next, b)
			}
		}
		segments = append(segments, append(b, s.Payload(i)...))
	}
	return segments
}

func TestCutMakesTheSegmentsThatTheKernelWould(t *testing.T) {
	for _, tc := range []struct{ from, to netip.Addr }{{a4, b4}, {a6, b6}} {
		super := tcp(tc.from, tc.to, 4*1000+123)
		super.Flags |= packettest.PSH | packettest.FIN | packettest.CWR
		segments := cut(t, super.Super(1000), true)
		if len(segments) != 5 {
			t.Fatalf("%d segments", len(segments))
		}
		for i, got := range segments {
			want := super
			want.Seq += uint32(i * 1000)
			want.ID += uint16(i)
			want.Payload = super.Payload[i*1000 : min((i+1)*1000, len(super.Payload))]
			if i > 0 {
				want.Flags &^= packettest.CWR
			}
			if i < 4 {
				want.Flags &^= packettest.PSH | packettest.FIN
			}
			if !bytes.Equal(got, want.Bytes()) {
				t.Errorf("%s, segment %d:\n got %x\nwant %x", tc.from, i, got[:80], want.Bytes()[:80])
			}
		}
	}
}

func TestCutRefusesHeadersThatContradictThePacket(t *testing.T) {
	for name, change := range map[string]func(f *packet.Frame){
		"more segments than any kernel makes": func(f *packet.Frame) { f.Virtio.GSOSize = 2 },
		"no gso_size":                         func(f *packet.Frame) { f.Virtio.GSOSize = 0 },
		"an unknown type":                     func(f *packet.Frame) { f.Virtio.GSOType = 9 },
		"the other IP version":                func(f *packet.Frame) { f.Virtio.GSOType = 4 },
		"no partial checksum":                 func(f *packet.Frame) { f.Virtio.Flags = 0 },
		"a checksum elsewhere":                func(f *packet.Frame) { f.Virtio.CsumOffset = 6 },
		"a start behind the end":              func(f *packet.Frame) { f.Virtio.CsumStart = 65535 },
		"a start inside the IP header":        func(f *packet.Frame) { f.Virtio.CsumStart = 12 },
		"headers without payload":             func(f *packet.Frame) { f.Trim(52) },
		"a TCP header cut short":              func(f *packet.Frame) { f.Trim(39) },
		"a TCP header of 4 bytes":             func(f *packet.Frame) { f.Packet()[32] = 0x10 },
		"UDP of a TCP packet":                 func(f *packet.Frame) { f.Virtio.GSOType, f.Virtio.CsumOffset = 5, 6 },
		"another protocol in the header":      func(f *packet.Frame) { f.Packet()[9] = 17 },
		"a first fragment":                    func(f *packet.Frame) { f.Packet()[6] |= 0x20 },
		"a later fragment":                    func(f *packet.Frame) { f.Packet()[7] = 10 },
	} {
		f := tcp(a4, b4, 3000).Super(1000)
		change(&f)
		if s, ok := f.Cut(true); ok {
			t.Errorf("%s: %d segments", name, s.Count)
		}
	}
}

// coalesce joins packets as one batch.
func coalesce(packets ...[]byte) []packet.Frame {
	return coalesceWith((*packet.Coalescer).Continue, packets...)
}

func coalesceWith(predict func(c *packet.Coalescer, b []byte) bool, packets ...[]byte) []packet.Frame {
	var c packet.Coalescer
	c.TCP, c.UDP = true, true
	for _, b := range packets {
		f := packet.NewFrames(1, 2000)[0]
		f.Fill(copy(f.Reset(), b))
		f.Virtio, _ = packet.PartialChecksum(f.Packet())
		if !predict(&c, f.Packet()) {
			c.Add(f)
		}
	}
	return c.Frames()
}

// whole returns a frame's packet in one piece.
func whole(f packet.Frame) []byte {
	return append(bytes.Clone(f.Packet()), bytes.Join(f.Rest, nil)...)
}

func TestCutAndJoinedASuperPacketIsItselfAgain(t *testing.T) {
	for _, tc := range []struct{ from, to netip.Addr }{{a4, b4}, {a6, b6}} {
		for _, complete := range []bool{false, true} {
			for _, payload := range []int{1001, 2000, 5000, 44 * 1000, 63999} {
				p := tcp(tc.from, tc.to, min(payload, 65535-92))
				p.Flags |= packettest.PSH | packettest.CWR | packettest.ECE
				super := p.Super(1000)
				want := bytes.Clone(super.Packet())
				frames := coalesce(cut(t, super, complete)...)
				if len(frames) != 1 || !bytes.Equal(whole(frames[0]), want) || frames[0].Virtio != super.Virtio {
					t.Errorf("%s, %d bytes, complete %v: %d frames, %+v, want %+v", tc.from, payload, complete,
						len(frames), frames[0].Virtio, super.Virtio)
				}
			}
		}
	}
}

func TestSegmentsAreNotJoinedAcrossADifference(t *testing.T) {
	next := func() packettest.TCP { // what would be joined
		p := tcp(a4, b4, 1000)
		p.Seq += 1000
		p.ID++
		return p
	}
	if n := len(coalesce(tcp(a4, b4, 1000).Bytes(), next().Bytes())); n != 1 {
		t.Fatalf("the ordinary next segment makes %d frames", n)
	}
	for name, change := range map[string]func(first, second *packettest.TCP){
		"a gap":                  func(_, p *packettest.TCP) { p.Seq++ },
		"a repetition":           func(_, p *packettest.TCP) { p.Seq -= 1000 },
		"another acknowledgment": func(_, p *packettest.TCP) { p.Ack++ },
		"another window":         func(_, p *packettest.TCP) { p.Window++ },
		"other timestamps":       func(_, p *packettest.TCP) { p.Options = slices.Clone(timestamps); p.Options[7]++ },
		"no options":             func(_, p *packettest.TCP) { p.Options = nil },
		"another TTL":            func(_, p *packettest.TCP) { p.TTL-- },
		"an ECN mark":            func(_, p *packettest.TCP) { p.TOS = 3 },
		"another DSCP":           func(_, p *packettest.TCP) { p.TOS = 0x28 },
		"fragments allowed":      func(_, p *packettest.TCP) { p.DontFragment = false },
		"a jump of the identification without DF": func(f, p *packettest.TCP) {
			f.DontFragment, p.DontFragment, p.ID = false, false, p.ID+1
		},
		"CWR":              func(_, p *packettest.TCP) { p.Flags |= packettest.CWR },
		"ECE":              func(_, p *packettest.TCP) { p.Flags |= packettest.ECE },
		"SYN":              func(_, p *packettest.TCP) { p.Flags |= packettest.SYN },
		"RST":              func(_, p *packettest.TCP) { p.Flags |= packettest.RST },
		"URG":              func(_, p *packettest.TCP) { p.Flags |= packettest.URG },
		"PSH on the first": func(f, _ *packettest.TCP) { f.Flags |= packettest.PSH },
		"FIN on the first": func(f, _ *packettest.TCP) { f.Flags |= packettest.FIN },
		"a longer one":     func(_, p *packettest.TCP) { p.Payload = make([]byte, 1001) },
		"another port":     func(_, p *packettest.TCP) { p.To = netip.AddrPortFrom(b4, 81) },
	} {
		first, second := tcp(a4, b4, 1000), next()
		change(&first, &second)
		frames := coalesce(first.Bytes(), second.Bytes())
		if len(frames) != 2 || !bytes.Equal(whole(frames[0]), first.Bytes()) || !bytes.Equal(whole(frames[1]), second.Bytes()) {
			t.Errorf("%s: %d frames", name, len(frames))
		}
	}
}

func TestAWrongChecksumIsNotRepairedByJoining(t *testing.T) {
	good, bad := tcp(a4, b4, 1000), tcp(a4, b4, 1000)
	bad.Seq += 1000
	broken := bad.Bytes()
	broken[len(broken)-1] ^= 1
	third := tcp(a4, b4, 1000)
	third.Seq += 2000
	frames := coalesce(good.Bytes(), broken, third.Bytes())
	if len(frames) != 3 || !bytes.Equal(whole(frames[1]), broken) {
		t.Errorf("%d frames; the broken packet must stay alone and broken", len(frames))
	}
}

func TestMixedFlowsJoinInOrder(t *testing.T) {
	var packets [][]byte
	for i := range 20 {
		for flow := range 5 {
			p := tcp(a4, b4, 500)
			p.From = netip.AddrPortFrom(a4, uint16(1000+flow))
			p.Seq += uint32(i * 500)
			packets = append(packets, p.Bytes())
			if i == 10 && flow == 3 { // a pure acknowledgment of one flow
				p.Payload, p.Seq = nil, p.Seq+500
				packets = append(packets, p.Bytes())
			}
		}
	}
	frames := coalesce(packets...)
	if len(frames) != 5+2 {
		t.Errorf("%d frames; want one per flow, and for the flow with the acknowledgment three", len(frames))
	}
}

func TestAPacketIsNotOvertakenByLaterOnesOfItsFlow(t *testing.T) {
	for name, change := range map[string]func(b []byte) []byte{
		"another traffic class": func(b []byte) []byte { b[0] |= 2; return b },
		"IPv4 options": func(b []byte) []byte {
			b = slices.Insert(b, 20, 1, 1, 1, 1)
			b[0], b[3] = 0x46, b[3]+4
			binary.BigEndian.PutUint16(b[10:], binary.BigEndian.Uint16(b[10:])-0x100-4-0x202)
			return b
		},
	} {
		from, to := a4, b4
		if name == "another traffic class" {
			from, to = a6, b6
		}
		first, middle, last := tcp(from, to, 500), tcp(from, to, 0), tcp(from, to, 500)
		middle.Seq += 500
		last.Seq += 500
		frames := coalesce(first.Bytes(), change(middle.Bytes()), last.Bytes())
		if len(frames) != 3 {
			t.Errorf("%s: the last packet went before the one in the middle: %d frames", name, len(frames))
		}
	}
}

func TestUDPDatagramsOfOneSizeAreJoined(t *testing.T) {
	for _, tc := range []struct{ from, to netip.Addr }{{a4, b4}, {a6, b6}} {
		var packets [][]byte
		for range 10 {
			packets = append(packets, packettest.UDP(tc.from, tc.to, 200))
		}
		frames := coalesce(append(packets, packettest.UDP(tc.from, tc.to, 100), packettest.UDP(tc.from, tc.to, 200))...)
		if len(frames) != 2 || frames[0].Virtio.GSOType != 5 || frames[0].Virtio.GSOSize != 200 || len(frames[0].Rest) != 10 {
			t.Fatalf("%d frames, the first %+v", len(frames), frames[0].Virtio)
		}
		again := packet.NewFrames(1, packet.MaxSize)[0]
		again.Fill(copy(again.Reset(), whole(frames[0])))
		again.Virtio = frames[0].Virtio
		for i, segment := range cut(t, again, true) {
			want := packettest.UDP(tc.from, tc.to, 200)
			if i == 10 {
				want = packettest.UDP(tc.from, tc.to, 100)
			}
			if tc.from.Is4() { // segments count their identification
				copy(want[4:6], segment[4:6])
				copy(want[10:12], segment[10:12])
			}
			if !bytes.Equal(segment, want) {
				t.Errorf("segment %d is %x, want %x", i, segment, want)
			}
		}
	}
}

// The kernel takes no more than 64 datagrams in one.
func TestUDPSuperPacketsAreLimited(t *testing.T) {
	datagram := packettest.UDP(a4, b4, 36)
	partial := packettest.UDP(a4, b4, 36)
	partial[26], partial[27] = 0, 0
	sum := uint32(17 + 44)
	for i := 12; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(partial[i:]))
	}
	binary.BigEndian.PutUint16(partial[26:], uint16(sum>>16+sum&0xffff))
	for name, b := range map[string][]byte{"complete": datagram, "partial": partial} {
		var sizes []int
		for _, f := range coalesce(slices.Repeat([][]byte{b}, 150)...) {
			sizes = append(sizes, 1+len(f.Rest))
		}
		if !slices.Equal(sizes, []int{64, 64, 22}) {
			t.Errorf("%s checksums: 150 datagrams are joined to %v", name, sizes)
		}
	}
}

// FuzzCoalesce holds the Coalescer to its word: what goes in comes out, in order for
// each flow, and byte for byte once the super-packets are cut again.
func FuzzCoalesce(f *testing.F) {
	f.Add(uint64(1), uint8(20))
	f.Fuzz(func(t *testing.T, seed uint64, n uint8) {
		r := rand.New(rand.NewPCG(seed, 0))
		sent := map[string][][]byte{}
		var packets [][]byte
		seq := map[uint16]uint32{}
		for range n {
			from, to := a4, b4
			if r.IntN(3) == 0 {
				from, to = a6, b6
			}
			p := tcp(from, to, []int{0, 1, 100, 100, 100, 1400}[r.IntN(6)])
			port := uint16(r.IntN(3))
			p.From = netip.AddrPortFrom(from, port)
			p.Seq = seq[port]
			if r.IntN(8) > 0 {
				seq[port] += uint32(len(p.Payload))
			}
			p.ID, p.DontFragment = uint16(seq[port]), r.IntN(2) == 0
			if r.IntN(5) == 0 {
				p.Flags |= []byte{packettest.PSH, packettest.FIN, packettest.CWR, packettest.ECE, packettest.SYN}[r.IntN(5)]
			}
			b := p.Bytes()
			complete := b
			if len(p.Payload) > 0 && seed%2 == 0 {
				b = cut(t, p.Super(1400), false)[0]
			} else if r.IntN(10) == 0 {
				b[r.IntN(len(b))] ^= 1 << r.IntN(8)
			}
			if h, ok := packet.Parse(b); !ok || h.Len != len(b) {
				continue
			}
			packets = append(packets, b)
			sent[flowOf(b)] = append(sent[flowOf(b)], complete)
		}
		frames := coalesce(packets...)
		never := func(*packet.Coalescer, []byte) bool { return false }
		for i, frame := range coalesceWith(never, packets...) {
			if i >= len(frames) || !bytes.Equal(whole(frame), whole(frames[i])) || frame.Virtio != frames[i].Virtio {
				t.Fatalf("without prediction, frame %d is another one", i)
			}
		}
		received := map[string][][]byte{}
		for _, frame := range frames {
			if frame.Virtio.GSOType == 0 && !frame.Complete() {
				t.Fatalf("what is left to do of a single packet makes no sense: %+v", frame.Virtio)
			}
			segments := [][]byte{whole(frame)}
			if frame.Virtio.GSOType != 0 {
				joined := packet.NewFrames(1, packet.MaxSize)[0]
				joined.Fill(copy(joined.Reset(), whole(frame)))
				joined.Virtio = frame.Virtio
				segments = cut(t, joined, true)
			}
			for _, s := range segments {
				received[flowOf(s)] = append(received[flowOf(s)], s)
			}
		}
		for flow, want := range sent {
			if got := received[flow]; len(got) != len(want) {
				t.Fatalf("%d packets of a flow became %d", len(want), len(got))
			}
			for i := range want {
				if got := received[flow][i]; !sameButID(got, want[i]) {
					t.Fatalf("packet %d of flow %x\n was %x\n  is %x", i, flow, want[i], got)
				}
			}
		}
	})
}

func flowOf(b []byte) string {
	if packet.IsIPv4(b) {
		return fmt.Sprintf("%x %x", b[9:10], b[12:24])
	}
	return fmt.Sprintf("%x %x", b[6:7], b[8:44])
}

// sameButID compares packets but for the IPv4 identification of one that must not
// be fragmented, which means nothing (RFC 6864 §4.1), and the checksum over it.
func sameButID(a, b []byte) bool {
	a, b = bytes.Clone(a), bytes.Clone(b)
	if packet.IsIPv4(a) && packet.IsIPv4(b) && len(a) >= 20 && len(b) >= 20 && b[6]&0x40 != 0 {
		for _, p := range [][]byte{a, b} {
			p[4], p[5], p[10], p[11] = 0, 0, 0, 0
		}
	}
	return bytes.Equal(a, b)
}
