package hostnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/marks"
)

// site is a node with two pods, a host outside, and the far end of the overlay.
//
//	pod1 eth0 ── pod1 ┐
//	                  node  eth0 ──────────── eth0  outside
//	pod2 eth0 ── pod2 ┘   weft0 ─(test pumps)─ tun0  remote: a peer and its pod
type site struct {
	node, outside, pod1, pod2, remote namespace

	host    *Host
	network Network
	tun     *os.File // the node's end
}

// addressing is where everything is, in one family.
type addressing struct {
	family                                           string
	node, outside, pod1, pod2, remotePod, remoteNode netip.Addr
	overlay, absentPod                               netip.Addr
}

var addressings = []addressing{
	{
		family: "4", node: netip.MustParseAddr("192.0.2.1"), outside: netip.MustParseAddr("192.0.2.2"),
		pod1: netip.MustParseAddr("10.244.1.11"), pod2: netip.MustParseAddr("10.244.1.12"),
		remotePod: netip.MustParseAddr("10.244.2.5"), remoteNode: netip.MustParseAddr("192.0.2.20"),
		overlay: netip.MustParseAddr("10.244.1.1"), absentPod: netip.MustParseAddr("10.244.1.99"),
	},
	{
		family: "6", node: netip.MustParseAddr("2001:db8::1"), outside: netip.MustParseAddr("2001:db8::2"),
		pod1: netip.MustParseAddr("fd00:244:0:1::11"), pod2: netip.MustParseAddr("fd00:244:0:1::12"),
		remotePod: netip.MustParseAddr("fd00:244:0:2::5"), remoteNode: netip.MustParseAddr("2001:db8::20"),
		overlay: netip.MustParseAddr("fd00:244:0:1::1"), absentPod: netip.MustParseAddr("fd00:244:0:1::99"),
	},
}

const echoPort = 7777

// newSite builds a site with the network applied, and an echo server on each
// address of the addressings.
func newSite(t *testing.T) *site {
	t.Helper()
	s := newBareSite(t)
	far := s.remote.openTUN(t, "tun0")
	s.remote.ip(t, "link set tun0 up")
	for _, a := range addressings {
		nodad := map[string]string{"6": "nodad"}[a.family]
		s.remote.ip(t, fmt.Sprintf("address add %s dev lo %s", a.remotePod, nodad))
		s.remote.ip(t, fmt.Sprintf("address add %s dev lo %s", a.remoteNode, nodad))
		s.remote.ip(t, fmt.Sprintf("-%s route add default dev tun0", a.family))
	}
	go pump(s.tun, far)
	go pump(far, s.tun)

	for _, a := range addressings {
		echo(t, s.node, a.node, echoPort)
		echo(t, s.node, a.overlay, echoPort)
		s.node.do(t, func() { answer(t, asWeftd(t, a.node, s.network.Port)) })
		echo(t, s.outside, a.outside, echoPort)
		echo(t, s.outside, a.outside, s.network.Port)
		echo(t, s.pod1, a.pod1, echoPort)
		echo(t, s.pod2, a.pod2, echoPort)
		echo(t, s.pod2, a.pod2, s.network.Port)
		echo(t, s.remote, a.remotePod, echoPort)
		echo(t, s.remote, a.remotePod, s.network.Port)
		echo(t, s.remote, a.remoteNode, echoPort)
	}
	return s
}

// newBareSite builds a site with the network applied, and the far end of the overlay left
// to the test.
func newBareSite(t *testing.T) *site {
	t.Helper()
	s := &site{
		node: newNamespace(t), outside: newNamespace(t), pod1: newNamespace(t), pod2: newNamespace(t),
		remote: newNamespace(t), host: newHost(), network: testNetwork(),
	}
	veth(t, s.node, "eth0", 0, s.outside, "eth0")
	s.node.ip(t, "address add 192.0.2.1/24 dev eth0")
	s.node.ip(t, "address add 2001:db8::1/64 dev eth0 nodad")
	s.outside.ip(t, "address add 192.0.2.2/24 dev eth0")
	s.outside.ip(t, "address add 2001:db8::2/64 dev eth0 nodad")
	// A non-peer that knows where pods are.
	s.outside.ip(t, "route add 10.244.0.0/16 via 192.0.2.1")
	s.outside.ip(t, "route add fd00:244::/48 via 2001:db8::1")
	s.wirePod(t, s.pod1, "pod1", "10.244.1.11", "fd00:244:0:1::11")
	s.wirePod(t, s.pod2, "pod2", "10.244.1.12", "fd00:244:0:1::12")

	s.tun = s.node.openTUN(t, "weft0")
	s.node.apply(t, s.host, s.network)
	return s
}

// wirePod does what weft-cni does: host routes out of the veth, a link-local gateway.
func (s *site) wirePod(t testing.TB, pod namespace, name, addr4, addr6 string) {
	t.Helper()
	veth(t, s.node, name, marks.PodLinkGroup, pod, "eth0")
	s.node.ip(t, "address add 169.254.1.1/32 dev "+name)
	s.node.ip(t, "address add fe80::1/64 nodad dev "+name)
	s.node.ip(t, fmt.Sprintf("route add %s dev %s proto %d", addr4, name, marks.PodRouteProtocol))
	s.node.ip(t, fmt.Sprintf("route add %s dev %s proto %d", addr6, name, marks.PodRouteProtocol))
	pod.ip(t, "address add "+addr4+"/32 dev eth0")
	pod.ip(t, "address add "+addr6+"/128 dev eth0 nodad")
	pod.ip(t, "route add 169.254.1.1 dev eth0")
	pod.ip(t, "route add default via 169.254.1.1 dev eth0")
	pod.ip(t, "-6 route add default via fe80::1 dev eth0")
}

// veth joins two namespaces; group is the link group of the first end.
func veth(t testing.TB, a namespace, nameA string, group uint32, b namespace, nameB string) {
	t.Helper()
	a.do(t, func() {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Group = nameA, group
		check(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: nameB, PeerNamespace: netlink.NsFd(b.handle)}))
	})
	for _, end := range []struct {
		ns   namespace
		name string
	}{{a, nameA}, {b, nameB}} {
		end.ns.run(t, "sysctl", "-qw", "net.ipv6.conf."+SysctlElement(end.name)+".accept_dad=0")
		end.ns.ip(t, "link set "+end.name+" up")
	}
}

// pump carries packets from one TUN device to the other until either is closed,
// as weftd and the underlay do.
func pump(from, to *os.File) {
	packet := make([]byte, 1<<16)
	for {
		n, err := from.Read(packet)
		if err != nil {
			return
		}
		// A packet that the other end refuses is lost, as on any network.
		_, _ = to.Write(packet[:n])
	}
}

// echo answers every datagram to addr and port with the address it came from.
func echo(t testing.TB, ns namespace, addr netip.Addr, port uint16) {
	t.Helper()
	var conn *net.UDPConn
	ns.do(t, func() {
		var err error
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port)))
		check(t, err)
	})
	answer(t, conn)
}

func answer(t testing.TB, conn *net.UDPConn) {
	t.Cleanup(func() { conn.Close() })
	go func() {
		for {
			_, from, err := conn.ReadFromUDPAddrPort(make([]byte, 100))
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort([]byte(from.Addr().String()), from)
		}
	}()
}

// dial returns a connected socket with the source from, whether or not the
// namespace has that address.
func dial(t testing.TB, ns namespace, from, to netip.Addr, port uint16) (conn net.Conn, err error) {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			level, option := unix.SOL_IP, unix.IP_TRANSPARENT
			if to.Is6() {
				level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
			}
			check(t, unix.SetsockoptInt(int(fd), level, option, 1))
		})
	}}
	if from.IsValid() {
		dialer.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	ns.do(t, func() {
		conn, err = dialer.DialContext(context.Background(), "udp", netip.AddrPortFrom(to, port).String())
	})
	return conn, err
}

// sees fails unless a datagram from from arrives at to and the answer comes back,
// and the receiver has seen it come from want.
func sees(t *testing.T, ns namespace, from, to netip.Addr, port uint16, want netip.Addr) {
	t.Helper()
	conn, err := dial(t, ns, from, to, port)
	check(t, err)
	defer conn.Close()
	answer := make([]byte, 100)
	var n int
	// The kernel gives a new IPv6 address its local route a moment after it has
	// confirmed it, and resolves neighbours first: a datagram may be lost.
	for range 200 {
		_, err = conn.Write([]byte("who am I?"))
		check(t, err)
		check(t, conn.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
		if n, err = conn.Read(answer); err == nil {
			break
		}
	}
	if err != nil {
		t.Errorf("from %s to %s port %d: %v", from, to, port, err)
		return
	}
	if got := string(answer[:n]); got != want.String() {
		t.Errorf("from %s to %s port %d: the receiver saw %s, want %s", from, to, port, got, want)
	}
}

// dropped fails unless a datagram from from to to is dropped, under reason.
func (s *site) dropped(t *testing.T, ns namespace, from, to netip.Addr, port uint16, reason string) {
	t.Helper()
	before := s.node.drops(t)
	conn, err := dial(t, ns, from, to, port)
	check(t, err)
	defer conn.Close()
	// EPERM reports the node's own drops.
	_, _ = conn.Write([]byte("let me in"))
	deadline := time.Now().Add(time.Minute)
	for s.node.drops(t)[reason] != before[reason]+1 {
		if time.Now().After(deadline) {
			t.Errorf("from %s to %s port %d: not dropped as %s; before %v, now %v",
				from, to, port, reason, before, s.node.drops(t))
			return
		}
	}
	check(t, conn.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	if n, err := conn.Read(make([]byte, 100)); err == nil {
		t.Errorf("from %s to %s port %d: an answer of %d bytes came", from, to, port, n)
	}
}

// unreachable fails unless a connection from ns to to is refused by ICMP at once.
func unreachable(t *testing.T, ns namespace, to netip.Addr) {
	t.Helper()
	ns.do(t, func() {
		_, err := net.DialTimeout("tcp", netip.AddrPortFrom(to, echoPort).String(), time.Minute)
		// ICMPv6 has "no route" (RFC 4443, section 3.1) for it.
		if !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("to %s: %v, want it to be unreachable", to, err)
		}
	})
}
