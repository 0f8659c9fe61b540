package vxlan_test

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"

	"weft/drop"
	"weft/encap"
	"weft/encap/vxlan"
	"weft/fib"
	"weft/packet"
	"weft/packet/packettest"
	"weft/peer"
)

var (
	node1 = &peer.Peer{Name: "node1", Endpoint: netip.MustParseAddrPort("192.168.77.1:9338"), VTEPMAC: peer.MAC{2, 0, 0, 0, 0, 1}}
	node2 = &peer.Peer{Name: "node2", Endpoint: netip.MustParseAddrPort("192.168.77.2:9338"), VTEPMAC: peer.MAC{2, 0, 0, 0, 0, 2}}
	inner = packettest.UDP(netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("10.244.2.3"), 8)
)

func frame(b []byte) packet.Frame {
	f := packet.NewFrames(1, 1500)[0]
	f.Fill(copy(f.Reset(), b))
	return f
}

func encode(t *testing.T, inner []byte) []byte {
	t.Helper()
	f := frame(inner)
	datagrams := encodeFrame(t, &f, node1, node2)
	if len(datagrams) != 1 {
		t.Fatalf("%d datagrams", len(datagrams))
	}
	return datagrams[0]
}

func encodeFrame(t *testing.T, f *packet.Frame, from, to *peer.Peer) [][]byte {
	t.Helper()
	var out encap.Batch
	if reason := vxlan.New(0x123456).Encode(&out, f, from, to); reason != drop.None {
		t.Fatalf("Encode = %v", reason)
	}
	var datagrams [][]byte
	for peer, datagram := range out.Datagrams() {
		if peer != to {
			t.Fatalf("a datagram goes to %s", peer.Name)
		}
		datagrams = append(datagrams, datagram)
	}
	return datagrams
}

// decode has node2 decode what arrives from an address of the underlay.
func decode(t *testing.T, datagram []byte, from string) (*encap.Received, *peer.Peer, drop.Reason) {
	t.Helper()
	table, err := fib.New(node2, []*peer.Peer{node1})
	if err != nil {
		t.Fatal(err)
	}
	r := &encap.Received{Frame: frame(datagram), From: netip.MustParseAddrPort(from)}
	peer, reason := vxlan.New(0x123456).Decode(r, table)
	return r, peer, reason
}

func TestEncodeWritesTheHeadersOfRFC7348(t *testing.T) {
	const want = "08000000" + "12345600" + // flags, VNI
		"020000000002" + "020000000001" + "0800" // Ethernet
	if got := hex.EncodeToString(encode(t, inner)[:vxlan.HeaderLen]); got != want {
		t.Errorf("header = %s, want %s", got, want)
	}
	inner6 := packettest.UDP(netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), 8)
	if got := hex.EncodeToString(encode(t, inner6)[20:22]); got != "86dd" {
		t.Errorf("EtherType of an IPv6 packet = %s", got)
	}
}

func TestEncodeRefusesAContradiction(t *testing.T) {
	f := frame(inner)
	f.Virtio.GSOType = 1 // TCP, which the packet is not
	var out encap.Batch
	if reason := vxlan.New(1).Encode(&out, &f, node1, node2); reason != drop.Unfinished || out.Len() != 0 {
		t.Errorf("Encode = %d messages, %v", out.Len(), reason)
	}
}

func TestDecodeReturnsThePacketAndItsSender(t *testing.T) {
	// A kernel peer chooses the source port per flow.
	r, peer, reason := decode(t, encode(t, inner), "192.168.77.1:54321")
	if reason != drop.None || peer != node1 || !bytes.Equal(r.Packet(), inner) {
		t.Errorf("Decode = %v, %v, %x", peer, reason, r.Packet())
	}
}

func TestDecodeDropsEachFaultUnderItsOwnReason(t *testing.T) {
	edit := func(at int, value byte) []byte {
		b := bytes.Clone(encode(t, inner))
		b[at] = value
		return b
	}
	const peer = "192.168.77.1:9338"
	for _, tc := range []struct {
		name     string
		datagram []byte
		from     string
		want     drop.Reason
	}{
		{"a non-peer's datagram", edit(0, 8), "192.168.77.9:9338", drop.UnknownPeer},
		{"an empty datagram", nil, peer, drop.Truncated},
		{"headers cut short", edit(0, 8)[:vxlan.HeaderLen-1], peer, drop.Truncated},
		{"no VNI flag", edit(0, 0), peer, drop.BadHeader},
		{"a flag of an extension", edit(0, 0x88), peer, drop.BadHeader},
		{"the flag of remote checksum offload", edit(1, 0x20), peer, drop.BadHeader},
		{"a reserved byte", edit(7, 1), peer, drop.BadHeader},
		{"another network", edit(6, 0x57), peer, drop.WrongVNI},
		{"another VTEP's address", edit(13, 3), peer, drop.WrongMAC},
		{"a broadcast", append(append(bytes.Clone(encode(t, inner)[:8]), bytes.Repeat([]byte{0xff}, 6)...), encode(t, inner)[14:]...), peer, drop.WrongMAC},
		{"ARP", edit(21, 6), peer, drop.NotIP},
	} {
		if _, _, got := decode(t, tc.datagram, tc.from); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestOverheadIsWhatTheUnderlayCarriesMore(t *testing.T) {
	if v4, v6 := vxlan.Overhead(false), vxlan.Overhead(true); v4 != 50 || v6 != 70 {
		t.Errorf("Overhead = %d over IPv4, %d over IPv6", v4, v6)
	}
}

// FuzzDecode holds Decode to its word on hostile input: no panic, and a packet only
// out of a well-formed datagram, which Encode would write in the same way.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	var out encap.Batch
	whole := frame(inner)
	vxlan.New(0x123456).Encode(&out, &whole, node1, node2)
	for _, datagram := range out.Datagrams() {
		f.Add(datagram)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1500 {
			return
		}
		r, peer, reason := decode(t, b, "192.168.77.1:9338")
		if (peer == nil) != (reason != drop.None) {
			t.Fatalf("peer %v with reason %v", peer, reason)
		}
		if reason != drop.None {
			return
		}
		if !bytes.Equal(r.Packet(), b[vxlan.HeaderLen:]) {
			t.Fatalf("packet %x of datagram %x", r.Packet(), b)
		}
		if _, ok := packet.Parse(r.Packet()); ok && packet.IsIPv4(r.Packet()) == (b[20] == 0x08) {
			sender := *node1
			copy(sender.VTEPMAC[:], b[14:20])
			if again := encodeFrame(t, &r.Frame, &sender, node2); !bytes.Equal(again[0], b) {
				t.Errorf("%x is encoded again as %x", b, again[0])
			}
		}
	})
}

// inbox keeps the messages that came.
type inbox struct{ from, text string }

func (i *inbox) Receive(from *peer.Peer, message []byte) drop.Reason {
	i.from, i.text = from.Name, string(message)
	return drop.None
}

func TestMessagesAreNoPackets(t *testing.T) {
	table, err := fib.New(node2, []*peer.Peer{node1})
	if err != nil {
		t.Fatal(err)
	}
	datagram := vxlan.Message(1, node1, node2, []byte("hello"))
	decode := func(codec *vxlan.Codec) (*peer.Peer, drop.Reason) {
		r := &encap.Received{Frame: frame(datagram), From: node1.Endpoint}
		return codec.Decode(r, table)
	}
	if from, reason := decode(vxlan.New(1)); from != nil || reason != drop.NotIP {
		t.Errorf("without anyone to take them: %v, %v", from, reason)
	}
	var in inbox
	codec := vxlan.New(1)
	codec.Messages, codec.Peers = &in, vxlan.NewPeers(1)
	codec.Peers.Set([]*peer.Peer{node1})
	if from, reason := decode(codec); from != nil || reason != drop.None || in != (inbox{node1.Name, "hello"}) {
		t.Errorf("%v, %v, %v", from, reason, in)
	}
	if got := codec.Peers.Traffic()[node1.Name]; got != (vxlan.Traffic{}) {
		t.Errorf("a message counts as %+v", got)
	}
}

func TestTrafficIsCountedByPeer(t *testing.T) {
	table, err := fib.New(node2, []*peer.Peer{node1})
	if err != nil {
		t.Fatal(err)
	}
	peers := vxlan.NewPeers(2)
	peers.Set([]*peer.Peer{node1})
	for lane := range 2 {
		codec := vxlan.New(0x123456)
		codec.Peers, codec.Lane = peers, lane
		var out encap.Batch
		f := frame(inner)
		codec.Encode(&out, &f, node2, node1)
		r := &encap.Received{Frame: frame(encode(t, inner)), From: node1.Endpoint}
		if from, _ := codec.Decode(r, table); from != node1 {
			t.Fatalf("from %v", from)
		}
	}
	n := uint64(len(inner))
	want := vxlan.Traffic{SentPackets: 2, SentBytes: 2 * n, ReceivedPackets: 2, ReceivedBytes: 2 * n}
	if got := peers.Traffic()[node1.Name]; got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	peers.Set(nil)
	if got := peers.Traffic(); len(got) > 0 {
		t.Errorf("of a peer that is gone: %v", got)
	}
}

func TestNamedPeersGetNoRuns(t *testing.T) {
	peers := vxlan.NewPeers(1)
	peers.Set([]*peer.Peer{node1, node2})
	codec := vxlan.New(1)
	codec.Peers = peers
	messages := func(to *peer.Peer) int {
		var out encap.Batch
		for range 3 {
			f := frame(inner)
			if reason := codec.Encode(&out, &f, node1, to); reason != drop.None {
				t.Fatalf("Encode = %v", reason)
			}
		}
		return out.Len()
	}
	peers.SendSingly(map[string]bool{"node2": true, "node9": true})
	peers.Set([]*peer.Peer{node1, node2}) // changes nothing of it
	if a, b := messages(node1), messages(node2); a != 1 || b != 3 {
		t.Errorf("three packets go to node1 in %d messages and to node2 in %d, want 1 and 3", a, b)
	}
	peers.SendSingly(nil)
	if n := messages(node2); n != 1 {
		t.Errorf("%d messages, want a run again", n)
	}
}
