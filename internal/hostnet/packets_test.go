package hostnet

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/marks"
)

var anySource netip.Addr

func forEachFamily(t *testing.T, test func(t *testing.T, a addressing)) {
	for _, a := range addressings {
		t.Run("IPv"+a.family, func(t *testing.T) { test(t, a) })
	}
}

func TestPodsAndNodesSeeEachOthersRealAddresses(t *testing.T) {
	s := newSite(t)
	forEachFamily(t, func(t *testing.T, a addressing) {
		seesRealAddresses(t, s, a)
	})
	for reason, n := range s.node.drops(t) {
		if n != 0 {
			t.Errorf("%d packets were dropped as %s", n, reason)
		}
	}
}

// seesRealAddresses goes all ways between pods and nodes.
func seesRealAddresses(t *testing.T, s *site, a addressing) {
	t.Helper()
	sees(t, s.pod1, anySource, a.pod2, echoPort, a.pod1)
	sees(t, s.pod1, anySource, a.remotePod, echoPort, a.pod1)
	sees(t, s.pod1, anySource, a.node, echoPort, a.pod1)
	sees(t, s.pod1, anySource, a.overlay, echoPort, a.pod1)
	// Through the overlay: there is no such host on the underlay of this site.
	sees(t, s.pod1, anySource, a.remoteNode, echoPort, a.pod1)
	sees(t, s.remote, a.remotePod, a.pod1, echoPort, a.remotePod)
	sees(t, s.remote, a.remoteNode, a.pod1, echoPort, a.remoteNode)
	sees(t, s.remote, a.remotePod, a.node, echoPort, a.remotePod)
	sees(t, s.node, anySource, a.remotePod, echoPort, a.overlay)
}

func TestPodsReachTheOutsideMasqueraded(t *testing.T) {
	s := newSite(t)
	forEachFamily(t, func(t *testing.T, a addressing) {
		sees(t, s.pod1, anySource, a.outside, echoPort, a.node)
		sees(t, s.node, anySource, a.outside, echoPort, a.node)
	})
}

func TestNonPeersDoNotReachPods(t *testing.T) {
	s := newSite(t)
	forEachFamily(t, func(t *testing.T, a addressing) {
		s.dropped(t, s.outside, a.outside, a.pod1, echoPort, dropBare)
		s.dropped(t, s.outside, a.outside, a.overlay, echoPort, dropBare)
		s.dropped(t, s.outside, a.outside, a.remotePod, echoPort, dropBare)
		s.dropped(t, s.outside, a.remotePod, a.pod1, echoPort, dropForeignSource)
		s.dropped(t, s.outside, a.pod2, a.pod1, echoPort, dropForeignSource)
		s.dropped(t, s.outside, a.pod1, a.node, echoPort, dropForeignSource)
	})
}

func TestNonPeersReachHostPortsAndServices(t *testing.T) {
	s := newSite(t)
	// What portmap and kube-proxy do: the latter masquerades on the way to another node.
	s.node.nft(t, fmt.Sprintf(`table inet services {
		chain prerouting {
			type nat hook prerouting priority dstnat;
			meta nfproto ipv4 udp dport 8080 dnat ip to 10.244.1.11:%[1]d
			meta nfproto ipv6 udp dport 8080 dnat ip6 to [fd00:244:0:1::11]:%[1]d
			meta nfproto ipv4 udp dport 30080 dnat ip to 10.244.2.5:%[1]d
			meta nfproto ipv6 udp dport 30080 dnat ip6 to [fd00:244:0:2::5]:%[1]d
		}
		chain postrouting {
			type nat hook postrouting priority srcnat;
			oifname "weft0" ct status dnat masquerade
		}
	}`, echoPort))
	forEachFamily(t, func(t *testing.T, a addressing) {
		sees(t, s.outside, anySource, a.node, 8080, a.outside)
		sees(t, s.outside, anySource, a.node, 30080, a.overlay)
		sees(t, s.pod2, anySource, a.node, 8080, a.pod2)
		sees(t, s.remote, a.remotePod, a.node, 8080, a.remotePod)
		sees(t, s.remote, a.remoteNode, a.node, 8080, a.remoteNode)
	})
}

// They do unless the uplink filters strictly (rp_filter 1).
func TestPeersPacketsReachAHostPort(t *testing.T) {
	s, a := newSite(t), addressings[0]
	s.outside.ip(t, fmt.Sprintf("address add %s/24 dev eth0", a.remoteNode)) // the peer, on the underlay
	s.node.nft(t, fmt.Sprintf(`table inet services {
		counter arrived { }
		chain prerouting {
			type nat hook prerouting priority dstnat;
			meta nfproto ipv4 udp dport 8080 dnat ip to %s:%d
		}
		chain forward {
			type filter hook forward priority 0;
			oifname "pod1" meta l4proto udp counter name arrived
		}
	}`, a.pod1, echoPort))
	filtered := func() string {
		return s.node.run(t, "sh", "-c", "nstat -asz TcpExtIPReversePathFilter | awk '/^Tcp/ {print $2}'")
	}
	for _, tc := range []struct{ mode, arrived, filtered string }{{"0", "1", "0"}, {"2", "2", "0"}, {"1", "2", "1"}} {
		s.node.run(t, "sysctl", "-qw", "net.ipv4.conf.eth0.rp_filter="+tc.mode)
		conn, err := dial(t, s.outside, a.remoteNode, a.node, 8080)
		check(t, err)
		_, err = conn.Write([]byte("from the node itself"))
		check(t, err)
		check(t, conn.Close())
		deadline := time.Now().Add(time.Minute)
		for {
			counter := s.node.run(t, "nft", "list counter inet services arrived")
			if strings.Contains(counter, "packets "+tc.arrived+" ") && filtered() == tc.filtered {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("rp_filter %s: %s packets should have arrived, %s be filtered; it is %s, %s",
					tc.mode, tc.arrived, tc.filtered, counter, filtered())
			}
		}
	}
}

// IPVS and other translators work without connection tracking. Answers to what they send to
// a peer's pod pass.
func TestGuardPassesOthersReplies(t *testing.T) {
	s := newSite(t)
	s.node.nft(t, fmt.Sprintf(`table inet others {
		chain prerouting {
			type filter hook prerouting priority -250;
			iifname "eth0" ip daddr 192.0.2.1 udp dport 8080 udp dport set %[1]d ip daddr set 10.244.2.5
			iifname "eth0" ip6 daddr 2001:db8::1 udp dport 8080 udp dport set %[1]d ip6 daddr set fd00:244:0:2::5
			iifname "weft0" ip daddr 192.0.2.2 udp sport %[1]d accept
		}
		chain postrouting {
			type nat hook postrouting priority srcnat;
			oifname "weft0" meta mark & 0x10000000 == 0 masquerade
		}
	}`, echoPort))
	forEachFamily(t, func(t *testing.T, a addressing) {
		before := s.node.drops(t)
		conn, err := dial(t, s.outside, a.outside, a.node, 8080)
		check(t, err)
		defer conn.Close()
		_, err = conn.Write([]byte("who am I?"))
		check(t, err)
		// The answer has the pod's address: what IPVS would translate back once more.
		s.outside.nft(t, "table inet seen { counter answers { }; chain input { type filter hook input priority 0; udp sport 7777 counter name answers; }; }")
		arrived := func() bool {
			_, _ = conn.Write([]byte("who am I?"))
			return !strings.Contains(s.outside.run(t, "nft", "list counter inet seen answers"), "packets 0 ")
		}
		if !eventually(arrived) {
			t.Errorf("no answer came: before %v, now %v", before, s.node.drops(t))
		}
		s.outside.nft(t, "delete table inet seen")
		// Connections that begin in the overlay don't pass.
		s.dropped(t, s.remote, a.remotePod, a.outside, echoPort, dropTransit)
	})
}

// Neither a cloud's rules for each address of the node, nor a VPN's for everything, nor a
// reverse path filter that asks for the whole way back, come between pods and nodes.
func TestForeignRulesDivertNoPod(t *testing.T) {
	s := newSite(t)
	s.node.openTUN(t, "foreign0")
	s.node.ip(t, "link set foreign0 up")
	for _, a := range addressings {
		family, segment := "-"+a.family+" ", netip.PrefixFrom(a.node, map[string]int{"4": 24, "6": 64}[a.family]).Masked()
		s.node.ip(t, fmt.Sprintf("%s route add default via %s dev eth0 table 30400", family, a.outside))
		s.node.ip(t, fmt.Sprintf("%s route add %s dev eth0 table 30400", family, segment))
		s.node.ip(t, fmt.Sprintf("%s rule add from %s lookup 30400 priority 30400", family, a.node))
		s.node.ip(t, family+"route add default dev foreign0 table 52")
		s.node.ip(t, fmt.Sprintf("%s route add throw %s table 52", family, segment))
		s.node.ip(t, family+"rule add lookup 52 priority 5270")
	}
	s.node.nft(t, `table inet firewall {
		counter filtered { }
		chain prerouting {
			type filter hook prerouting priority mangle + 10;
			meta nfproto ipv6 icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
			fib saddr . mark . iif oif missing counter name filtered drop
		}
	}`)
	forEachFamily(t, func(t *testing.T, a addressing) {
		seesRealAddresses(t, s, a)
	})
	if got := s.node.run(t, "nft", "list counter inet firewall filtered"); !strings.Contains(got, "packets 0 ") {
		t.Errorf("the reverse path filter dropped packets: %s", got)
	}
}

func TestPodsDoNotSpoof(t *testing.T) {
	s := newSite(t)
	forEachFamily(t, func(t *testing.T, a addressing) {
		sees(t, s.pod2, anySource, a.remotePod, echoPort, a.pod2) // its source is valid, for its own interface
		for _, source := range []netip.Addr{a.pod2, a.remotePod, a.outside, a.absentPod, a.remoteNode} {
			s.dropped(t, s.pod1, source, a.remotePod, echoPort, dropSpoofed)
			s.dropped(t, s.pod1, source, a.outside, echoPort, dropSpoofed)
		}
	})
}

// The guard remembers for a moment which sources it has looked up: no others than pods' addresses,
// and it does look them up again.
func TestSourcesAreLookedUpAgain(t *testing.T) {
	s := newSite(t)
	forEachFamily(t, func(t *testing.T, a addressing) {
		remembered := func() string { return s.node.run(t, "nft", "list", "set", "inet", "weft", setRouted+a.family) }
		if !eventually(func() bool {
			sees(t, s.pod1, anySource, a.remotePod, echoPort, a.pod1)
			return strings.Contains(remembered(), fmt.Sprintf(`"pod1" . %s `, a.pod1))
		}) {
			t.Errorf("the address of pod1 is not remembered: %s", remembered())
		}
		if a.family == "6" {
			var local string // of the node, so that the pod's own link-local address is the source
			s.node.do(t, func() { local = linkLocal(t, "pod1") })
			conn, err := dial(t, s.pod1, anySource, netip.MustParseAddr(local+"%eth0"), echoPort)
			check(t, err)
			_, err = conn.Write([]byte("from a link-local address"))
			check(t, err)
			check(t, conn.Close())
			if got := remembered(); strings.Contains(got, "fe80:") {
				t.Errorf("a link-local address is remembered: %s", got)
			}
		}
		s.node.ip(t, fmt.Sprintf("route replace %s dev pod2", a.pod1))
		before := s.node.drops(t)[dropSpoofed]
		if !eventually(func() bool {
			if conn, err := dial(t, s.pod1, anySource, a.remotePod, echoPort); err == nil {
				_, _ = conn.Write([]byte("not routed to this pod any more"))
				conn.Close()
			}
			return s.node.drops(t)[dropSpoofed] > before
		}) {
			t.Errorf("pod1 goes on sending from %s, which is another pod's now", a.pod1)
		}
	})
}

func linkLocal(t testing.TB, name string) string {
	t.Helper()
	link, err := net.InterfaceByName(name)
	check(t, err)
	addrs, err := link.Addrs()
	check(t, err)
	for _, a := range addrs {
		if p := netip.MustParsePrefix(a.String()); p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
			return p.Addr().String()
		}
	}
	t.Fatalf("%s has no link-local address: %v", name, addrs)
	return ""
}

func TestOverlayDoesNotReachWeftsPort(t *testing.T) {
	s := newSite(t)
	s.node.nft(t, `table inet services {
		chain prerouting {
			type nat hook prerouting priority dstnat;
			meta nfproto ipv4 udp dport 5001 dnat ip to 192.0.2.1:9338
			meta nfproto ipv6 udp dport 5001 dnat ip6 to [2001:db8::1]:9338
			meta nfproto ipv4 udp dport 5002 dnat ip to 192.0.2.20:9338
			meta nfproto ipv6 udp dport 5002 dnat ip6 to [2001:db8::20]:9338
		}
	}`)
	forEachFamily(t, func(t *testing.T, a addressing) {
		for _, to := range []netip.Addr{a.node, a.overlay, a.remoteNode} {
			s.dropped(t, s.pod1, anySource, to, 9338, dropTunnelInTunnel)
		}
		// Through a Service.
		s.dropped(t, s.pod1, anySource, a.node, 5001, dropTunnelInTunnel)
		s.dropped(t, s.pod1, anySource, a.node, 5002, dropTunnelInTunnel)
		s.dropped(t, s.remote, a.remotePod, a.node, 5001, dropTunnelInTunnel)
		s.dropped(t, s.remote, a.remotePod, a.node, 5002, dropTunnelInTunnel)

		s.dropped(t, s.remote, a.remotePod, a.node, 9338, dropTunnelInTunnel)
		s.dropped(t, s.remote, a.remotePod, a.overlay, 9338, dropTunnelInTunnel)
		// The number is weft's on nodes only.
		sees(t, s.pod1, anySource, a.outside, 9338, a.node)
		sees(t, s.pod1, anySource, a.pod2, 9338, a.pod1)
		sees(t, s.pod1, anySource, a.remotePod, 9338, a.pod1)
		sees(t, s.remote, a.remotePod, a.pod2, 9338, a.remotePod)
		// weftd's datagrams don't enter the tunnel that they came out of.
		s.node.do(t, func() {
			conn := asWeftd(t, a.node, 50000)
			defer conn.Close()
			before := s.node.drops(t)[dropTunnelInTunnel]
			_, _ = conn.WriteToUDPAddrPort([]byte("outer"), netip.AddrPortFrom(a.remotePod, 9338))
			if got := s.node.drops(t)[dropTunnelInTunnel]; got != before+1 {
				t.Errorf("%d of weftd's datagrams into the tunnel dropped, want 1", got-before)
			}
		})
	})
}

func TestPeersReachNothingBehindTheNode(t *testing.T) {
	s := newSite(t)
	s.node.ip(t, "route add 203.0.113.0/24 via 192.0.2.2")
	s.node.ip(t, "route add 2001:db8:1::/48 via 2001:db8::2")
	forEachFamily(t, func(t *testing.T, a addressing) {
		s.dropped(t, s.remote, a.remotePod, a.outside, echoPort, dropTransit)
	})
	s.dropped(t, s.remote, addressings[0].remotePod, netip.MustParseAddr("203.0.113.1"), echoPort, dropTransit)
	s.dropped(t, s.remote, addressings[1].remotePod, netip.MustParseAddr("2001:db8:1::1"), echoPort, dropTransit)
	// Another peer's pod: in through the overlay and out again.
	s.dropped(t, s.remote, addressings[0].remotePod, netip.MustParseAddr("10.244.3.1"), echoPort, dropTransit)
}

func TestNothingGoesBareWhenTheOverlayIsAway(t *testing.T) {
	s := newSite(t)
	// The underlay would gladly take the packets.
	s.node.ip(t, "route add default via 192.0.2.2")
	s.node.ip(t, "-6 route add default via 2001:db8::2")
	// Answer every packet, not one a second.
	s.node.run(t, "sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
	s.hostPort(t, 8080)
	check(t, s.tun.Close())
	forEachFamily(t, func(t *testing.T, a addressing) {
		s.dropped(t, s.pod1, anySource, a.remoteNode, echoPort, dropLeak)
		// Nor does an answer to a peer's node, by a hostPort.
		s.peerOutside(t, a)
		s.dropped(t, s.outside, a.remoteNode, a.node, 8080, dropLeak)
		s.outside.ip(t, fmt.Sprintf("address delete %s dev eth0", a.remoteNode))
		unreachable(t, s.pod1, a.remotePod)
		unreachable(t, s.pod1, a.absentPod)
		unreachable(t, s.node, a.remotePod)
		sees(t, s.pod1, anySource, a.pod2, echoPort, a.pod1)
		sees(t, s.pod1, anySource, a.outside, echoPort, a.node)
	})
	// Not even when another program's route leads there.
	s.node.ip(t, "route add 10.244.0.0/16 via 192.0.2.2")
	s.node.ip(t, "route add fd00:244::/48 via 2001:db8::2")
	forEachFamily(t, func(t *testing.T, a addressing) {
		s.dropped(t, s.pod1, anySource, a.remotePod, echoPort, dropLeak)
		s.dropped(t, s.node, anySource, a.remotePod, echoPort, dropLeak)
	})
}

// asWeftd returns a socket whose datagrams are marked as weftd's.
func asWeftd(t testing.TB, addr netip.Addr, port uint16) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port)))
	check(t, err)
	raw, err := conn.SyscallConn()
	check(t, err)
	check(t, raw.Control(func(fd uintptr) {
		check(t, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(marks.DefaultMask.OwnDatagram())))
	}))
	return conn
}

func TestUnderlayDatagramsAreNotTracked(t *testing.T) {
	s := newSite(t)
	s.node.nft(t, `table inet watch {
		counter untracked { }
		counter tracked { }
		chain input {
			type filter hook input priority 0;
			udp dport 9338 ct state untracked counter name untracked
			udp dport 9338 ct state != untracked counter name tracked
		}
		chain output {
			type filter hook output priority 0;
			udp sport 9338 ct state untracked counter name untracked
			udp sport 9338 ct state != untracked counter name tracked
			udp dport 9338 ct state untracked counter name untracked
			udp dport 9338 ct state != untracked counter name tracked
		}
	}`)
	forEachFamily(t, func(t *testing.T, a addressing) {
		sees(t, s.outside, anySource, a.node, 9338, a.outside)
	})
	for _, a := range addressings {
		s.node.do(t, func() {
			conn := asWeftd(t, a.node, testNetwork().SourcePorts[0])
			defer conn.Close()
			_, err := conn.WriteToUDPAddrPort([]byte("outer"), netip.AddrPortFrom(a.remoteNode, 9338))
			check(t, err)
		})
	}
	if got := s.node.run(t, "nft", "list counter inet watch untracked"); !strings.Contains(got, "packets 6 ") {
		t.Errorf("6 datagrams should be untracked: %s", got)
	}
	if got := s.node.run(t, "nft", "list counter inet watch tracked"); !strings.Contains(got, "packets 0 ") {
		t.Errorf("datagrams are tracked: %s", got)
	}
	sees(t, s.pod1, anySource, addressings[0].outside, echoPort, addressings[0].node)
	var table []byte
	s.node.do(t, func() {
		var err error
		table, err = os.ReadFile("/proc/thread-self/net/nf_conntrack")
		check(t, err)
	})
	if !bytes.Contains(table, []byte("dport=7777")) || bytes.Contains(table, []byte("port=9338")) {
		t.Errorf("connection table:\n%s", table)
	}
}

func TestPodsAreNoRouters(t *testing.T) {
	s := newSite(t)
	// Even where the node is set to accept advertisements.
	s.node.run(t, "sysctl", "-qw", "net.ipv6.conf.pod1.accept_ra=2")
	advert := []byte{134, 0, 0, 0, 64, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0} // RFC 4861, section 4.2
	redirect := make([]byte, 40)
	redirect[0] = 137 // RFC 4861, section 4.5
	s.pod1.do(t, func() {
		conn, err := net.ListenPacket("ip6:ipv6-icmp", "::")
		check(t, err)
		defer conn.Close()
		for _, packet := range [][]byte{advert, redirect} {
			_, err = conn.WriteTo(packet, &net.IPAddr{IP: net.ParseIP("ff02::1"), Zone: "eth0"})
			check(t, err)
		}
	})
	if !eventually(func() bool { return s.node.drops(t)[dropRouterAdvert] == 2 }) {
		t.Errorf("%d packets dropped, want 2", s.node.drops(t)[dropRouterAdvert])
	}
	if routes := s.node.ip(t, "-6 route show proto ra"); routes != "" {
		t.Errorf("the pod is a router: %s", routes)
	}
}

func TestTheKernelSaysNothingIntoTheTUN(t *testing.T) {
	ns := newNamespace(t)
	tun := ns.openTUN(t, "weft0")
	ns.apply(t, newHost(), testNetwork())
	// The first router solicitation and listener report come within a second
	// (RFC 4861, section 10; RFC 3810, section 9.11).
	check(t, tun.SetReadDeadline(time.Now().Add(1500*time.Millisecond)))
	packet := make([]byte, 2000)
	if n, err := tun.Read(packet); err == nil {
		t.Errorf("the kernel sent %x", packet[:n])
	}
}
