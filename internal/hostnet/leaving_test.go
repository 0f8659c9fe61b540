package hostnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"weft/internal/marks"
)

// hostPort has the node forward what comes to a port from the underlay to pod1.
func (s *site) hostPort(t *testing.T, port uint16) {
	t.Helper()
	s.node.run(t, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.eth0.rp_filter=0")
	s.node.nft(t, fmt.Sprintf(`table inet services {
		chain prerouting {
			type nat hook prerouting priority dstnat;
			iifname "eth0" meta nfproto ipv4 udp dport %[1]d dnat ip to %[2]s:%[4]d
			iifname "eth0" meta nfproto ipv6 udp dport %[1]d dnat ip6 to [%[3]s]:%[4]d
		}
	}`, port, addressings[0].pod1, addressings[1].pod1, echoPort))
}

// peerOutside gives the host outside the address of a peer's node.
func (s *site) peerOutside(t *testing.T, a addressing) {
	t.Helper()
	nodad := map[string]string{"6": "nodad"}[a.family]
	s.outside.ip(t, fmt.Sprintf("address add %s dev eth0 %s", a.remoteNode, nodad))
}

// The node's own ICMP errors belong to pods' connections. They reach a peer's node that uses a
// hostPort.
func TestPeersLearnThatAPacketIsTooBig(t *testing.T) {
	s := newSite(t)
	s.hostPort(t, 8080)
	s.node.run(t, "sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
	s.node.ip(t, "link set pod1 mtu 1300")
	forEachFamily(t, func(t *testing.T, a addressing) {
		s.peerOutside(t, a)
		before := s.node.drops(t)[dropLeak]
		conn, err := dial(t, s.outside, a.remoteNode, a.node, 8080)
		check(t, err)
		defer conn.Close()
		if !eventually(func() bool {
			_, err := conn.Write(make([]byte, 1400))
			return errors.Is(err, unix.EMSGSIZE)
		}) {
			t.Error("it never learns that its packets are too big for the pod's interface")
		}
		if after := s.node.drops(t)[dropLeak]; after != before {
			t.Errorf("%s %d -> %d", dropLeak, before, after)
		}
	})
}

// A pod's ICMP error that quotes another's connection gets that connection's addresses. It does
// not leave bare for a peer's node.
func TestForgedErrorsDoNotLeaveBare(t *testing.T) {
	s, a := newSite(t), addressings[0]
	other, address := newNamespace(t), netip.MustParseAddr("172.17.0.2")
	veth(t, s.node, "other", 0, other, "eth0")
	s.node.ip(t, "address add 172.17.0.1/24 dev other")
	other.ip(t, fmt.Sprintf("address add %s/24 dev eth0", address))
	other.ip(t, "route add default via 172.17.0.1")
	s.node.nft(t, `table inet others { chain post { type nat hook postrouting priority srcnat; ip saddr 172.17.0.0/24 oifname "eth0" masquerade; }; }`)
	s.peerOutside(t, a)
	echo(t, s.outside, a.remoteNode, echoPort)
	check(t, s.tun.Close())

	if got := answersTo(t, other, netip.AddrPortFrom(address, 5555), netip.AddrPortFrom(a.remoteNode, echoPort)); got != a.node.String() {
		t.Fatalf("the peer's node saw %s, want %s", got, a.node)
	}

	message, err := (&icmp.Message{Type: ipv4.ICMPTypeDestinationUnreachable, Code: 3, Body: &icmp.DstUnreach{
		Data: ipPacket(a.remoteNode, address, unix.IPPROTO_UDP, udpTo(a.remoteNode, address, echoPort, 5555), 0, nil),
	}}).Marshal(nil)
	check(t, err)
	before := s.node.drops(t)[dropLeak]
	s.pod1.do(t, func() {
		raw, err := net.ListenPacket("ip4:icmp", a.pod1.String())
		check(t, err)
		defer raw.Close()
		_, err = raw.WriteTo(message, &net.IPAddr{IP: a.remoteNode.AsSlice()})
		check(t, err)
	})
	if !eventually(func() bool { return s.node.drops(t)[dropLeak] > before }) {
		t.Errorf("it is not dropped as %s: %v", dropLeak, s.node.drops(t))
	}
}

// What gets weftd's mark from another program, on its way out, is no datagram of weftd's.
func TestOwnMarkThatComesLate(t *testing.T) {
	s := newSite(t)
	s.node.nft(t, fmt.Sprintf(`table inet other {
		chain marking { type route hook output priority mangle; udp dport 5002 meta mark set %#x; }
		chain service { type nat hook output priority -100; meta nfproto ipv4 udp dport 5002 dnat ip to %s:%d; }
	}`, marks.DefaultMask.OwnDatagram(), addressings[0].remoteNode, s.network.Port))
	s.dropped(t, s.node, anySource, netip.MustParseAddr("192.0.2.77"), 5002, dropLocalSender)
}

// Whoever asks a pod under a peer's address and weft's port gets no answer there.
func TestPodsDoNotAnswerToWeftsPort(t *testing.T) {
	s := newSite(t)
	s.hostPort(t, 8080)
	forEachFamily(t, func(t *testing.T, a addressing) {
		s.peerOutside(t, a)
		before := s.node.drops(t)[dropLocalSender]
		s.outside.do(t, func() {
			conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.remoteNode, s.network.Port)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.node, 8080)))
			check(t, err)
			defer conn.Close()
			_, err = conn.Write([]byte("answer to the port of the peer"))
			check(t, err)
		})
		if !eventually(func() bool { return s.node.drops(t)[dropLocalSender] > before }) {
			t.Errorf("the answer is not dropped as %s: %v", dropLocalSender, s.node.drops(t))
		}
	})
}
