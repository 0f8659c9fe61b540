package tun_test

import (
	"errors"
	"math"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/testnet"
	"weft/packet"
	"weft/packet/packettest"
	"weft/router/tun"
)

// expectSizes fails unless datagrams with these numbers of bytes arrive next.
func expectSizes(t *testing.T, conn *net.UDPConn, sizes ...int) {
	t.Helper()
	buf := make([]byte, 2000)
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	for _, size := range sizes {
		if n, err := conn.Read(buf); n != size || err != nil {
			t.Fatalf("the kernel's socket got %d bytes, want %d: %v", n, size, err)
		}
	}
}

// The frames beside it arrive.
func TestImpossibleVirtioHeaderIsLost(t *testing.T) {
	namespace, queues := open(t, "superpacket", 1)
	conn := bind(t, namespace, 5000)
	const csum, tcp4, udp = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, unix.VIRTIO_NET_HDR_GSO_TCPV4, unix.VIRTIO_NET_HDR_GSO_UDP_L4
	for name, virtio := range map[string]packet.VirtioHeader{
		"a checksum that starts behind the end": {Flags: csum, CsumStart: math.MaxUint16, CsumOffset: 6},
		"a checksum that lies behind the end":   {Flags: csum, CsumStart: 20, CsumOffset: math.MaxUint16},
		"headers longer than the packet":        {Flags: csum, HdrLen: math.MaxUint16, CsumStart: 20, CsumOffset: 6},
		"no gso_size":                           {Flags: csum, GSOType: udp, CsumStart: 20, CsumOffset: 6},
		"an unknown type":                       {Flags: csum, GSOType: 9, GSOSize: 100, CsumStart: 20, CsumOffset: 6},
		"more datagrams than the kernel cuts":   {Flags: csum, GSOType: udp, GSOSize: 1, CsumStart: 20, CsumOffset: 6},
		"TCP segments of a UDP packet":          {Flags: csum, GSOType: tcp4, GSOSize: 100, CsumStart: 20, CsumOffset: 6},
	} {
		t.Run(name, func(t *testing.T) {
			batch := frames(packettest.UDP(remote, kernel, 100), packettest.UDP(remote, kernel, 1000), packettest.UDP(remote, kernel, 90))
			batch[1].Virtio = virtio
			if n, err := queues[0].Write(batch); n != 2 || !errors.Is(err, unix.EINVAL) {
				t.Errorf("Write = %d, %v; want 2 and EINVAL", n, err)
			}
			expectSizes(t, conn, 100, 90)
		})
	}
}

// txDropped is how many packets the kernel could not queue for the device.
func txDropped(t *testing.T, namespace *testnet.Namespace) uint64 {
	t.Helper()
	var dropped uint64
	err := namespace.Do(func() error {
		link, err := netlink.LinkByName(device)
		if err == nil {
			dropped = link.Attrs().Statistics.TxDropped
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return dropped
}

// A full queue blocks neither the sender nor later packets.
func TestFullQueueLosesOnlyTheExcess(t *testing.T) {
	forEachDriver(t, func(t *testing.T, driver string) {
		namespace, queues := open(t, driver, 1)
		conn, to := bind(t, namespace, 5000), net.UDPAddrFromAddrPort(netip.AddrPortFrom(remote, 7))
		_ = conn.SetWriteDeadline(time.Now().Add(time.Minute))
		const sent = 5000
		for range sent {
			if _, err := conn.WriteTo([]byte("flood"), to); err != nil {
				t.Fatal(err)
			}
		}
		dropped := txDropped(t, namespace)
		if dropped == 0 || dropped == sent {
			t.Fatalf("of %d packets that no reader takes, %d are counted as dropped", sent, dropped)
		}
		left := 0
		readPayloads(t, queues[0], func(payload string) bool {
			if payload == "flood" {
				left++
			}
			return left == int(sent-dropped) // at least: the kernel's own packets may be among those dropped
		})
		if _, err := conn.WriteTo([]byte("next"), to); err != nil {
			t.Fatal(err)
		}
		readPayloads(t, queues[0], func(payload string) bool { return payload == "next" })
	})
}

// readPayloads reads what comes to remote until it is enough.
func readPayloads(t *testing.T, q tun.Queue, enough func(payload string) bool) {
	t.Helper()
	watchdog := time.AfterFunc(time.Minute, func() { q.Close() })
	defer watchdog.Stop()
	for done := false; !done; {
		frames, err := q.Read()
		if err != nil {
			t.Fatal(err)
		}
		for i := range frames {
			if h, ok := packet.Parse(frames[i].Packet()); ok && h.Destination == remote {
				done = enough(string(frames[i].Packet()[28:])) || done
			}
		}
	}
}
