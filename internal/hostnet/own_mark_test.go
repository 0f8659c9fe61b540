package hostnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/marks"
)

// The mark of weftd's own datagrams is no passport. At postrouting the kernel names no iif for a
// multicast packet that it forwards (ip_mc_output), as for one that it sends. If another program
// gives a pod's packet the mark, it must not leave untranslated.
func TestOwnMarkOnMulticast(t *testing.T) {
	s := newSite(t)
	s.node.run(t, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.pod1.rp_filter=0")
	s.node.nft(t, fmt.Sprintf(`table inet other {
		chain untrack { type filter hook prerouting priority raw; iifname "pod1" notrack; }
		chain marking { type filter hook prerouting priority mangle; iifname "pod1" meta mark set %#x; }
	}`, marks.DefaultMask.OwnDatagram()))
	s.node.do(t, func() { // what a multicast router does; see linux/mroute.h
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_IGMP)
		check(t, err)
		t.Cleanup(func() { unix.Close(fd) })
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, 200, 1) // MRT_INIT
		if errors.Is(err, unix.ENOPROTOOPT) {
			t.Skip("this kernel forwards no multicast (CONFIG_IP_MROUTE)")
		}
		check(t, err)
		for i, name := range []string{"pod1", "eth0"} {
			link, err := net.InterfaceByName(name)
			check(t, err)
			vif := make([]byte, 16) // struct vifctl
			binary.NativeEndian.PutUint16(vif, uint16(i))
			vif[2], vif[3] = 8, 1 // VIFF_USE_IFINDEX, the threshold
			binary.NativeEndian.PutUint32(vif[8:], uint32(link.Index))
			check(t, unix.SetsockoptString(fd, unix.IPPROTO_IP, 202, string(vif))) // MRT_ADD_VIF
		}
		mfc := make([]byte, 60) // struct mfcctl
		copy(mfc, []byte{10, 244, 1, 11, 239, 1, 2, 3})
		mfc[11] = 1                                                            // the ttl of eth0
		check(t, unix.SetsockoptString(fd, unix.IPPROTO_IP, 204, string(mfc))) // MRT_ADD_MFC
	})
	before := s.node.drops(t)[dropLeak]
	s.pod1.do(t, func() {
		conn, err := net.Dial("udp4", "239.1.2.3:7")
		check(t, err)
		defer conn.Close()
		raw, err := conn.(*net.UDPConn).SyscallConn()
		check(t, err)
		check(t, raw.Control(func(fd uintptr) { check(t, unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 9)) }))
		_, err = conn.Write([]byte("leak"))
		check(t, err)
	})
	if !eventually(func() bool { return s.node.drops(t)[dropLeak] > before }) {
		t.Errorf("it is not dropped as %s: %v", dropLeak, s.node.drops(t))
	}
}

// Where another program overwrites marks, bridged frames are dropped rather than let through
// (bridge.go).
func TestOwnMarkOnBridgedFrames(t *testing.T) {
	b := newBridgedSite(t)
	b.node.nft(t, fmt.Sprintf(`table inet other { chain forward { type filter hook forward priority filter; meta iifkind "bridge" meta l4proto udp meta mark set %#x; }; }`,
		marks.DefaultMask.OwnDatagram()))
	b.dropped(t, b.vms[0], netip.MustParseAddr("10.244.77.64"), netip.MustParseAddr("198.51.100.65"), 99, dropLeak)
}

// Not even weftd's own datagrams leave for a pod, where a route leads there.
func TestOwnDatagramsToPods(t *testing.T) {
	s := newSite(t)
	for i, pod := range []string{"10.244.9.9", "fd00:244:0:9::9"} {
		a := addressings[i]
		s.node.ip(t, fmt.Sprintf("route replace %s via %s dev eth0", pod, a.outside))
		before := s.node.drops(t)[dropLeak]
		s.node.do(t, func() {
			conn := asWeftd(t, a.node, 50000)
			defer conn.Close()
			_, err := conn.WriteToUDPAddrPort([]byte("outer"), netip.AddrPortFrom(netip.MustParseAddr(pod), 9338))
			if after := s.node.drops(t)[dropLeak]; err == nil || after != before+1 {
				t.Errorf("an own datagram to %s leaves: %v, %s %d -> %d", pod, err, dropLeak, before, after)
			}
		})
	}
}
