package tun_test

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"weft/internal/testnet"
	"weft/router/packet"
	"weft/router/packet/packettest"
	"weft/router/tun"
)

// TestCutMakesTheSegmentsThatThisKernelMakes hands a super-packet to the kernel on one
// device, and has it routed out of another that takes no super-packets: what comes
// out is the kernel's own segmentation.
func TestCutMakesTheSegmentsThatThisKernelMakes(t *testing.T) {
	namespace, err := testnet.ForTest(t, testnet.Options{Prefix: "tun"}).AddNamespace(t.Context(), "router")
	if err != nil {
		t.Fatal(err)
	}
	var in, out tun.Queue
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
	payload := make([]byte, 20_123)
	for i := range payload {
		payload[i] = byte(i * 31)
	}
	for _, addrs := range [][2]string{{"10.244.1.2", "10.244.2.3"}, {"fd00:244:1::2", "fd00:244:2::3"}} {
		for _, flags := range []byte{packettest.ACK, packettest.ACK | packettest.PSH | packettest.FIN, packettest.ACK | packettest.CWR | packettest.ECE} {
			p := packettest.TCP{
				From: netip.AddrPortFrom(netip.MustParseAddr(addrs[0]), 40000), To: netip.AddrPortFrom(netip.MustParseAddr(addrs[1]), 80),
				Seq: 0xffffff00, Ack: 9, Flags: flags, Window: 1000, Options: []byte{1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 9},
				TOS: 2, TTL: 64, ID: 0xfffe, DontFragment: true, Payload: payload,
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
				if kernels := readTCP(t, out); !bytes.Equal(ours, kernels) {
					t.Fatalf("%s, flags %#x, segment %d of %d:\nours   %x\nkernel %x", addrs[0], flags, i, segments.Count,
						ours[:min(len(ours), 72)], kernels[:min(len(kernels), 72)])
				}
			}
		}
	}
}

// readTCP returns the next TCP packet.
func readTCP(t *testing.T, q tun.Queue) []byte {
	t.Helper()
	return readPacket(t, q, func(b []byte, _ packet.Header) bool {
		return packet.IsIPv4(b) && b[9] == 6 || !packet.IsIPv4(b) && b[6] == 6
	})
}
