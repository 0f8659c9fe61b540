package hostnet

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/marks"
)

// Pods' packets get source ports that are not weft's, out of the longest run there is.
func TestMasqueradePortsAreNotWefts(t *testing.T) {
	for _, tc := range []struct {
		port      uint16
		sources   []uint16
		low, high int
	}{
		{9338, nil, 9339, 65535},
		{9338, []uint16{50000, 50001}, 9339, 49999},
		{40000, []uint16{65535, 1024}, 1025, 39999},
		{53, nil, 1024, 65535},
		{65535, nil, 1024, 65534},
	} {
		low, high := Network{Port: tc.port, SourcePorts: tc.sources}.masqueradePorts()
		if low != tc.low || high != tc.high {
			t.Errorf("beside %d and %d: %d to %d, want %d to %d", tc.port, tc.sources, low, high, tc.low, tc.high)
		}
	}
}

// answersTo sends from a port of a pod until an answer comes, and returns it.
func answersTo(t testing.TB, ns namespace, from netip.AddrPort, to netip.AddrPort) string {
	t.Helper()
	var conn *net.UDPConn
	ns.do(t, func() {
		var err error
		conn, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
		check(t, err)
	})
	defer conn.Close()
	return exchange(t, conn)
}

func exchange(t testing.TB, conn net.Conn) string {
	t.Helper()
	answer := make([]byte, 100)
	for range 20 {
		_, err := conn.Write([]byte("who am I?"))
		check(t, err)
		check(t, conn.SetReadDeadline(time.Now().Add(500*time.Millisecond)))
		if n, err := conn.Read(answer); err == nil {
			return string(answer[:n])
		}
	}
	return "no answer"
}

// An answer that comes to weft's port reaches the pod that asked, whether weft's
// masquerade or another program's has translated the question.
func TestAnswersToWeftsPortArrive(t *testing.T) {
	s := newSite(t)
	s.network.RandomPorts = false // or chance would choose another port
	s.node.apply(t, s.host, s.network)
	forEachFamily(t, func(t *testing.T, a addressing) {
		from, to := netip.AddrPortFrom(a.pod1, 9338), netip.AddrPortFrom(a.outside, echoPort)
		if got := answersTo(t, s.pod1, from, to); got != a.node.String() {
			t.Errorf("from weft's port number: %s", got)
		}
	})
	s.node.nft(t, `table inet others {
		chain postrouting {
			type nat hook postrouting priority 90;
			oifname "eth0" udp dport 7777 masquerade to :9338
		}
	}`)
	forEachFamily(t, func(t *testing.T, a addressing) {
		from, to := netip.AddrPortFrom(a.pod1, 4711), netip.AddrPortFrom(a.outside, echoPort)
		if got := answersTo(t, s.pod1, from, to); got != a.node.String() {
			t.Errorf("translated by another program: %s; drops %v", got, s.node.drops(t))
		}
		// A peer's datagrams to weft's port are not taken for answers.
		sees(t, s.outside, anySource, a.node, 9338, a.outside)
	})
}

// The guard table masquerades packets of the node's programs to other nodes' pods, if their
// source is an address that peers don't know: peers would drop them. A peer's own
// view of the node, and of pods, stays.
func TestOtherAddressesReachPeersPods(t *testing.T) {
	s := newSite(t)
	s.node.ip(t, "address add 192.0.2.77/32 dev eth0")
	s.node.ip(t, "address add 2001:db8::77/128 dev eth0 nodad")
	if !eventually(func() bool { return strings.Contains(s.node.ip(t, "-6 route show table local"), "2001:db8::77") }) {
		t.Fatal("the kernel never takes 2001:db8::77 for local")
	}
	forEachFamily(t, func(t *testing.T, a addressing) {
		other := netip.MustParseAddr(map[string]string{"4": "192.0.2.77", "6": "2001:db8::77"}[a.family])
		sees(t, s.node, other, a.remotePod, echoPort, a.overlay)
		sees(t, s.node, a.node, a.remotePod, echoPort, a.node)
		sees(t, s.node, a.overlay, a.remotePod, echoPort, a.overlay)
		sees(t, s.pod1, a.pod1, a.remotePod, echoPort, a.pod1)
	})
}

// A connection that began while no guard table stood is masqueraded as soon as one does,
// whether weftd starts or another program removed its table.
func TestStaleFlowsAreMasqueraded(t *testing.T) {
	for name, host := range map[string]func(*site) *Host{
		"started":  func(*site) *Host { return newHost() },
		"restored": func(s *site) *Host { return s.host },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			masqueradesStale(t, s, host(s))
		})
	}
}

func masqueradesStale(t *testing.T, s *site, host *Host) {
	t.Helper()
	s.node.nft(t, "table inet others { chain forward { type filter hook forward priority 0; ct state new accept; }; }")
	s.node.nft(t, "delete table inet weft")
	forEachFamily(t, func(t *testing.T, a addressing) {
		conn, err := dial(t, s.pod1, a.pod1, a.outside, echoPort)
		check(t, err)
		defer conn.Close()
		if got := exchange(t, conn); got != a.pod1.String() {
			t.Fatalf("without a guard table the connection is translated: %s", got)
		}
		kept, err := dial(t, s.pod1, a.pod1, a.pod2, echoPort)
		check(t, err)
		defer kept.Close()
		if got := exchange(t, kept); got != a.pod1.String() {
			t.Errorf("from pod to pod: %s", got)
		}
		s.node.apply(t, host, s.network)
		if got := exchange(t, conn); got != a.node.String() {
			t.Errorf("the connection goes on as %s", got)
		}
		if got := exchange(t, kept); got != a.pod1.String() {
			t.Errorf("from pod to pod: %s", got)
		}
		s.node.nft(t, "delete table inet weft")
	})
}

// Interfaces that the configuration trusts reach this node's pods by their addresses, and
// nothing else.
func TestTrustedInterfacesReachPods(t *testing.T) {
	s := newSite(t)
	s.network.Trusted = []string{"wg0", "eth0"}
	s.node.apply(t, s.host, s.network)
	forEachFamily(t, func(t *testing.T, a addressing) {
		sees(t, s.outside, a.outside, a.pod1, echoPort, a.outside)
		sees(t, s.pod1, anySource, a.outside, echoPort, a.node)
		s.dropped(t, s.outside, a.pod2, a.pod1, echoPort, dropForeignSource)
		s.dropped(t, s.outside, a.remotePod, a.pod1, echoPort, dropForeignSource)
	})
	s.network.Trusted = []string{"wg0"}
	s.node.apply(t, s.host, s.network)
	forEachFamily(t, func(t *testing.T, a addressing) {
		s.dropped(t, s.outside, a.outside, a.pod1, echoPort, dropBare)
	})
}

// nft needs no file of names to take the guard table, as in an image without /etc.
func TestGuardNeedsNoNames(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	empty := t.TempDir()
	network := testNetwork()
	network.Trusted = []string{"wg0"}
	check(t, withMounts(
		func() error { return unix.Mount(empty, "/etc", "", unix.MS_BIND, "") },
		func() error { return ns.tryApply(t, newHost(), network) }))
}

// A cluster CIDR that would take a network from the host is found, whichever contains the
// other.
func TestOverlappingNetworksAreFound(t *testing.T) {
	local := []LocalNetwork{
		{"eth0", netip.MustParsePrefix("192.0.2.0/24")}, {"stor0", netip.MustParsePrefix("10.244.200.0/24")},
		{"stor0", netip.MustParsePrefix("10.244.200.0/24")}, {"vpn0", netip.MustParsePrefix("10.0.0.0/8")},
		{"eth0", netip.MustParsePrefix("2001:db8::/64")}, {"eth1", netip.MustParsePrefix("fd00:244:0:77::/64")},
	}
	got := fmt.Sprint(Overlapping(testNetwork().ClusterCIDRs, local))
	if want := "[10.244.200.0/24 on stor0 10.0.0.0/8 on vpn0 fd00:244:0:77::/64 on eth1]"; got != want {
		t.Errorf("found %s, want %s", got, want)
	}
	if got := Overlapping(prefixes("10.244.0.0/16"), local[:1]); got != nil {
		t.Errorf("found %s", got)
	}
}

// TestLocalNetworksAreTheHosts: not weft's own, and not those of pods.
func TestLocalNetworksAreTheHosts(t *testing.T) {
	ns, far := newNamespace(t), newNamespace(t)
	ns.openTUN(t, "weft0")
	veth(t, ns, "eth0", 0, far, "eth0")
	veth(t, ns, "pod1", marks.PodLinkGroup, far, "pod1")
	ns.ip(t, "address add 192.0.2.1/24 dev eth0")
	ns.ip(t, "address add 2001:db8::1/64 dev eth0 nodad noprefixroute")
	ns.ip(t, "address add 203.0.113.1/32 dev lo")
	ns.ip(t, "address add 169.254.1.1/32 dev pod1")
	ns.ip(t, "route add 10.244.1.11 dev pod1 proto 94")
	ns.ip(t, "route add 198.51.100.0/24 dev eth0")
	ns.ip(t, "route add 10.0.0.0/8 via 192.0.2.2")
	ns.apply(t, newHost(), testNetwork())
	var found []string
	ns.do(t, func() {
		networks, err := LocalNetworks("weft0")
		check(t, err)
		for _, n := range networks {
			found = append(found, n.String())
		}
	})
	slices.Sort(found)
	got := strings.Join(slices.Compact(found), ", ")
	if want := "192.0.2.0/24 on eth0, 198.51.100.0/24 on eth0, 2001:db8::/64 on eth0"; got != want {
		t.Errorf("found %s, want %s", got, want)
	}
}
