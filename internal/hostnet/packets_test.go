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
	})
	for reason, n := range s.node.drops(t, s.host) {
		if n != 0 {
			t.Errorf("%d packets were dropped as %s", n, reason)
		}
	}
}

func TestPodsReachTheOutsideMasqueraded(t *testing.T) {
	s := newSite(t)
	forEachFamily(t, func(t *testing.T, a addressing) {
		sees(t, s.pod1, anySource, a.outside, echoPort, a.node)
		sees(t, s.node, anySource, a.outside, echoPort, a.node)
	})
}

func TestStrangersDoNotReachPods(t *testing.T) {
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

func TestStrangersReachPodsByHostPortAndService(t *testing.T) {
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

func TestAPeersOwnPacketsReachAHostPortUnlessTheUplinkFiltersStrictly(t *testing.T) {
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

func TestPodsDoNotSpoof(t *testing.T) {
	s := newSite(t)
	forEachFamily(t, func(t *testing.T, a addressing) {
		for _, source := range []netip.Addr{a.pod2, a.remotePod, a.outside, a.absentPod, a.remoteNode} {
			s.dropped(t, s.pod1, source, a.remotePod, echoPort, dropSpoofed)
			s.dropped(t, s.pod1, source, a.outside, echoPort, dropSpoofed)
		}
	})
}

func TestNobodySpeaksToWeftsPortThroughTheOverlay(t *testing.T) {
	s := newSite(t)
	s.node.nft(t, `table inet services {
		chain prerouting {
			type nat hook prerouting priority dstnat;
			meta nfproto ipv4 udp dport 5001 dnat ip to 192.0.2.1:9338
			meta nfproto ipv6 udp dport 5001 dnat ip6 to [2001:db8::1]:9338
			meta nfproto ipv4 udp dport 5002 dnat ip to 192.0.2.2:9338
			meta nfproto ipv6 udp dport 5002 dnat ip6 to [2001:db8::2]:9338
		}
	}`)
	forEachFamily(t, func(t *testing.T, a addressing) {
		for _, to := range []netip.Addr{a.node, a.overlay, a.outside, a.remoteNode, a.remotePod, a.pod2} {
			s.dropped(t, s.pod1, anySource, to, 9338, dropTunnelInTunnel)
		}
		// Through a Service.
		s.dropped(t, s.pod1, anySource, a.node, 5001, dropTunnelInTunnel)
		s.dropped(t, s.pod1, anySource, a.node, 5002, dropTunnelInTunnel)
		s.dropped(t, s.remote, a.remotePod, a.node, 5001, dropTunnelInTunnel)
		s.dropped(t, s.remote, a.remotePod, a.node, 5002, dropTunnelInTunnel)

		s.dropped(t, s.remote, a.remotePod, a.node, 9338, dropTunnelInTunnel)
		s.dropped(t, s.remote, a.remotePod, a.pod1, 9338, dropTunnelInTunnel)
		s.dropped(t, s.node, anySource, a.remotePod, 9338, dropTunnelInTunnel)
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
	check(t, s.tun.Close())
	forEachFamily(t, func(t *testing.T, a addressing) {
		s.dropped(t, s.pod1, anySource, a.remoteNode, echoPort, dropLeak)
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

func TestConnectionTrackingIgnoresTheUnderlaysDatagrams(t *testing.T) {
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
		var conn net.Conn
		var err error
		s.node.do(t, func() {
			dialer := net.Dialer{LocalAddr: &net.UDPAddr{Port: int(testNetwork().SourcePorts[0])}}
			conn, err = dialer.DialContext(t.Context(), "udp", netip.AddrPortFrom(a.remoteNode, 9338).String())
		})
		check(t, err)
		_, err = conn.Write([]byte("outer"))
		check(t, err)
		check(t, conn.Close())
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
	// Even where someone has told the node to listen.
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
	if got := s.node.drops(t, s.host)[dropRouterAdvert]; got != 2 {
		t.Errorf("%d packets dropped, want 2", got)
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
