package tun_test

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"weft/internal/testnet"
	"weft/packet"
	"weft/packet/packettest"
	"weft/router/tun"
)

// TestCutMakesTheSegmentsThatThisKernelMakes hands a super-packet to the kernel on one
// device, and has it routed out of another that takes no super-packets: what comes
// out is the kernel's own segmentation.
func TestCutMakesTheSegmentsThatThisKernelMakes(t *testing.T) {
	in, out := routed(t)
	payload := make([]byte, 20_123)
	for i := range payload {
		payload[i] = byte(i * 31)
	}
	for _, tc := range []struct {
		from, to   string
		extensions []byte
	}{
		{"10.244.1.2", "10.244.2.3", nil},
		{"fd00:244:1::2", "fd00:244:2::3", nil},
		{"fd00:244:1::2", "fd00:244:2::3", []byte{0}},
		{"fd00:244:1::2", "fd00:244:2::3", []byte{60}},
		{"fd00:244:1::2", "fd00:244:2::3", []byte{0, 60, 60}},
	} {
		for _, flags := range []byte{packettest.ACK, packettest.ACK | packettest.PSH | packettest.FIN, packettest.ACK | packettest.CWR | packettest.ECE} {
			p := packettest.TCP{
				From: netip.AddrPortFrom(netip.MustParseAddr(tc.from), 40000), To: netip.AddrPortFrom(netip.MustParseAddr(tc.to), 80),
				Seq: 0xffffff00, Ack: 9, Flags: flags, Window: 1000, Options: []byte{1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9},
				TOS: 2, TTL: 64, ID: 0xfffe, DontFragment: true, Payload: payload, Extensions: tc.extensions,
			}
			super := p.Super(1400)
			p.TTL-- // the kernel routes
			routed := p.Super(1400)
			segments, ok := routed.Cut(true)
			if !ok {
				t.Fatal("Cut refuses the super-packet")
			}
			if n, err := in.Write([]packet.Frame{super}); n != 1 || err != nil {
				t.Fatalf("Write = %d, %v", n, err)
			}
			for i := range segments.Count {
				ours := make([]byte, segments.HeaderLen)
				segments.Header(ours, i)
				ours = append(ours, segments.Payload(i)...)
				if kernels := readFrom(t, out, tc.from); !bytes.Equal(ours, kernels) {
					t.Fatalf("%s, flags %#x, extension headers %v, segment %d of %d:\nours   %x\nkernel %x", tc.from, flags, tc.extensions, i, segments.Count,
						ours[:min(len(ours), 96)], kernels[:min(len(kernels), 96)])
				}
			}
		}
	}
}

// TestFinishIsWhatThisKernelWouldSend has the kernel complete the checksums that a tunnel
// in a pod leaves partial.
func TestFinishIsWhatThisKernelWouldSend(t *testing.T) {
	in, out := routed(t)
	for _, kind := range packettest.Tunnels() {
		for _, addrs := range [][2]string{{"10.244.1.2", "10.244.2.3"}, {"fd00:244:1::2", "fd00:244:2::3"}} {
			from, to := netip.MustParseAddr(addrs[0]), netip.MustParseAddr(addrs[1])
			inner := packettest.TCP{From: netip.AddrPortFrom(from, 40000), To: netip.AddrPortFrom(to, 80), Seq: 9, Ack: 9,
				Flags: packettest.ACK, Window: 1000, TTL: 64, Payload: make([]byte, 1001)}
			handed, card := packettest.Tunnel(kind, from, to, inner)
			finished := handed.Clone(0)
			if !finished.Finish() || !bytes.Equal(finished.Packet(), card) {
				t.Fatalf("%s from %s: Finish leaves %+v", kind, from, finished.Virtio)
			}
			if n, err := in.Write([]packet.Frame{handed}); n != 1 || err != nil {
				t.Fatalf("Write = %d, %v", n, err)
			}
			kernels, ours, at := readFrom(t, out, addrs[0]), finished.Packet(), 8
			if from.Is4() { // the kernel routes: the time to live, and the checksum over it
				kernels[10], kernels[11], ours[10], ours[11] = 0, 0, 0, 0
			} else {
				at = 7
			}
			if ours[at]--; !bytes.Equal(ours, kernels) {
				t.Errorf("%s from %s:\nours   %.200x\nkernel %.200x", kind, from, ours, kernels)
			}
		}
	}
}

// routed returns two devices between which the kernel routes, and completes and cuts what
// the second one does not take.
func routed(t *testing.T) (in, out tun.Queue) {
	t.Helper()
	namespace, err := testnet.ForTest(t, testnet.Options{Prefix: "tun"}).AddNamespace(t.Context(), "router")
	if err != nil {
		t.Fatal(err)
	}
	err = namespace.Do(func() error {
		queues, err := tun.Open("superpacket", "in0", 1)
		if err != nil {
			return err
		}
		in = queues[0]
		if queues, err = tun.Open("water", "out0", 1); err == nil {
			out = queues[0]
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); out.Close() })
	for _, command := range []string{
		"sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv6.conf.out0.router_solicitations=0",
		"ip link set in0 up", "ip link set out0 up",
		"ip route add 10.244.2.0/24 dev out0", "ip route add 10.244.1.0/24 dev in0",
		"ip route add fd00:244:2::/64 dev out0", "ip route add fd00:244:1::/64 dev in0",
	} {
		fields := strings.Fields(command)
		if _, err := namespace.Exec(t.Context(), fields[0], fields[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	return in, out
}

// readFrom returns the next packet from an address.
func readFrom(t *testing.T, q tun.Queue, from string) []byte {
	t.Helper()
	return readPacket(t, q, func(_ []byte, h packet.Header) bool { return h.Source == netip.MustParseAddr(from) })
}
