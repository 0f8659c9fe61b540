package hostnet

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/control"
)

// routing is all that iproute2 shows of weft's routes and of the rules.
func (ns namespace) routing(t testing.TB) string {
	t.Helper()
	var all []string
	for _, args := range []string{
		"-4 route show table all proto 93", "-6 route show table all proto 93", "-4 rule show", "-6 rule show",
	} {
		all = append(all, ns.ip(t, args))
	}
	return strings.Join(all, "\n")
}

const testRouting = `10.244.2.0/24 dev weft0 scope link src 10.244.1.1
10.244.3.0/24 dev weft0 scope link src 10.244.1.1
192.0.2.20 dev weft0 table 9338 scope link
192.0.2.30 dev weft0 table 9338 scope link
unreachable 10.244.0.0/16 metric 1073741824
unreachable 10.244.1.0/24 metric 1073741824
2001:db8::20 dev weft0 table 9338 metric 1 pref medium
2001:db8::30 dev weft0 table 9338 metric 1 pref medium
fd00:244:0:2::/64 dev weft0 src fd00:244:0:1::1 metric 1 pref medium
fd00:244:0:3::/64 dev weft0 src fd00:244:0:1::1 metric 1 pref medium
unreachable fd00:244::/48 dev lo metric 1073741824 pref medium
unreachable fd00:244:0:1::/64 dev lo metric 1073741824 pref medium
0:	from all lookup local
5180:	from all to 10.244.0.0/16 lookup main proto 93
5181:	from all fwmark 0x10000000/0x30000000 lookup 9338 proto 93
5182:	from 10.244.1.0/24 lookup 9338 proto 93
32766:	from all lookup main
32767:	from all lookup default
0:	from all lookup local
5180:	from all to fd00:244::/48 lookup main proto 93
5181:	from all fwmark 0x10000000/0x30000000 lookup 9338 proto 93
5182:	from fd00:244:0:1::/64 lookup 9338 proto 93
32766:	from all lookup main`

func expect(t testing.TB, what, got, want string) {
	t.Helper()
	lines := func(s string) []string { return strings.Split(s, "\n") }
	if diff := cmp.Diff(lines(want), lines(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestApplyMakesTheNetworkHold(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	ns.apply(t, newHost(), testNetwork())

	expect(t, "routes and rules", sorted(ns.routing(t)), sorted(testRouting))

	link := ns.ip(t, "link show weft0")
	for _, want := range []string{"mtu 1400", "qlen 1000", ",UP"} {
		if !strings.Contains(link, want) {
			t.Errorf("no %q in %s", want, link)
		}
	}
	if strings.Contains(link, "MULTICAST") {
		t.Errorf("multicast is on: %s", link)
	}
	var addrs []string
	for line := range strings.Lines(ns.ip(t, "-o address show dev weft0")) {
		addrs = append(addrs, strings.Join(strings.Fields(line)[2:4], " "))
	}
	if diff := cmp.Diff([]string{"inet 10.244.1.1/32", "inet6 fd00:244:0:1::1/128"}, addrs); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{
		"net.ipv4.ip_forward":               "1",
		"net.ipv6.conf.all.forwarding":      "1",
		"net.ipv4.conf.weft0.rp_filter":     "2",
		"net.ipv6.conf.weft0.accept_ra":     "0",
		"net.ipv6.conf.weft0.addr_gen_mode": "1",
	} {
		if got := ns.sysctl(t, name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

// sorted sorts the lines of s.
func sorted(s string) string {
	lines := strings.Split(s, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestApplyLeavesAnUnusedFamilyAlone(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	n := testNetwork()
	n.MTU = 1000
	n.Addresses, n.PodCIDRs, n.ClusterCIDRs, n.PeerCIDRs = n.Addresses[:1], n.PodCIDRs[:1], n.ClusterCIDRs[:1], n.PeerCIDRs[:1]
	ns.apply(t, newHost(), n)
	if got := ns.sysctl(t, "net.ipv6.conf.all.forwarding"); got != "0" {
		t.Errorf("IPv6 forwarding is %s", got)
	}
	if routes := ns.ip(t, "-6 route show table all proto 93"); routes != "" {
		t.Errorf("IPv6 routes: %s", routes)
	}
}

func TestApplyAgainChangesNothing(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	host := newHost()
	events := ns.watch(t)
	ns.apply(t, host, testNetwork())
	if n := events(); n == 0 {
		t.Error("the first Apply caused no message: what follows is blind")
	}
	ns.apply(t, host, testNetwork())
	if n := events(); n != 0 {
		t.Errorf("the second Apply caused %d messages of change", n)
	}
	ns.apply(t, newHost(), testNetwork())
	expect(t, "routes and rules after a restart", sorted(ns.routing(t)), sorted(testRouting))
}

// watch returns a function that counts the rtnetlink and nftables messages of
// change since it was last called, once no more of them come.
func (ns namespace) watch(t testing.TB) func() int {
	t.Helper()
	var sockets []*nl.NetlinkSocket
	ns.do(t, func() {
		rt, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
			unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
		check(t, err)
		nft, err := nl.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
		check(t, err)
		sockets = append(sockets, rt, nft)
	})
	for _, s := range sockets {
		t.Cleanup(s.Close)
		check(t, s.SetReceiveTimeout(&unix.Timeval{Usec: 100_000}))
	}
	return func() (count int) {
		for _, s := range sockets {
			for {
				messages, _, err := s.Receive()
				if errors.Is(err, unix.EAGAIN) {
					break
				}
				check(t, err)
				for _, m := range messages {
					if !kernelsOwn(m) {
						count++
					}
				}
			}
		}
		return count
	}
}

// kernelsOwn reports whether the kernel may send a message some time after what caused it: when
// a device has its carrier, or IPv6 has finished with an address, with the kernel's own routes.
func kernelsOwn(m syscall.NetlinkMessage) bool {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_NEWADDR:
		return true
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return nl.DeserializeRtMsg(m.Data).Protocol == unix.RTPROT_KERNEL
	}
	return false
}

func TestApplyFollowsPeers(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	host := newHost()
	n := testNetwork()
	ns.apply(t, host, n)

	// One leaves, one joins, and this node's own address changes.
	n.PeerCIDRs = prefixes("10.244.2.0/24", "10.244.4.0/24", "fd00:244:0:2::/64")
	n.PeerAddresses = addresses("192.0.2.20", "192.0.2.40", "2001:db8::20")
	n.Addresses = addresses("10.244.1.2", "fd00:244:0:1::2")
	ns.apply(t, host, n)

	expect(t, "routes", sorted(ns.ip(t, "-4 route show table all proto 93")), sorted(
		`10.244.2.0/24 dev weft0 scope link src 10.244.1.2
10.244.4.0/24 dev weft0 scope link src 10.244.1.2
192.0.2.20 dev weft0 table 9338 scope link
192.0.2.40 dev weft0 table 9338 scope link
unreachable 10.244.0.0/16 metric 1073741824
unreachable 10.244.1.0/24 metric 1073741824`))
	expect(t, "IPv6 routes", sorted(ns.ip(t, "-6 route show table all proto 93")), sorted(
		`2001:db8::20 dev weft0 table 9338 metric 1 pref medium
fd00:244:0:2::/64 dev weft0 src fd00:244:0:1::2 metric 1 pref medium
unreachable fd00:244::/48 dev lo metric 1073741824 pref medium
unreachable fd00:244:0:1::/64 dev lo metric 1073741824 pref medium`))
	if addrs := ns.ip(t, "address show dev weft0"); strings.Contains(addrs, "10.244.1.1/") || strings.Contains(addrs, ":1::1/") {
		t.Errorf("a stale address is left: %s", addrs)
	}
	if set := ns.run(t, "nft", "list set inet weft peer_nodes4"); !strings.Contains(set, "192.0.2.40") || strings.Contains(set, "192.0.2.30") {
		t.Errorf("the guard has other peers: %s", set)
	}
}

// TestApplyFollowsPathMTUs: the routes to what is behind a narrow path have its MTU, also after another
// program or an earlier weftd has given them others.
func TestApplyFollowsPathMTUs(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	host := newHost()
	n := testNetwork()
	ns.apply(t, host, n)
	narrow := n
	narrow.MTUs = map[netip.Prefix]int{}
	for _, p := range prefixes("10.244.2.0/24", "fd00:244:0:2::/64", "192.0.2.20/32", "2001:db8::20/128") {
		narrow.MTUs[p] = 1300
	}
	want := testRouting
	for _, route := range []string{
		"10.244.2.0/24 dev weft0 scope link src 10.244.1.1", "192.0.2.20 dev weft0 table 9338 scope link",
		"2001:db8::20 dev weft0 table 9338 metric 1", "fd00:244:0:2::/64 dev weft0 src fd00:244:0:1::1 metric 1",
	} {
		want = strings.Replace(want, route, route+" mtu lock 1300", 1)
	}
	for range 2 {
		ns.apply(t, host, narrow)
		expect(t, "narrow routes", sorted(ns.routing(t)), sorted(want))
		ns.ip(t, "route replace 10.244.2.0/24 dev weft0 src 10.244.1.1 mtu 1280 proto 93")
		host = newHost() // a new weftd
	}
	ns.apply(t, host, n)
	expect(t, "routes", sorted(ns.routing(t)), sorted(testRouting))
}

func TestApplySweepsWhatAPredecessorLeft(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	ns.ip(t, "link add old type veth peer name old1")
	ns.ip(t, "link set old up")
	ns.ip(t, "link set weft0 up")
	for _, args := range []string{
		"address add 10.244.9.9/24 dev weft0",
		"route add 10.244.7.0/24 dev weft0 proto 93",                   // a peer that has left
		"route add 10.244.2.0/24 dev old proto 93",                     // a route to be changed
		"route append 10.244.2.0/24 dev weft0 src 10.244.9.9 proto 93", // and a second one in its place
		"route add 192.0.2.70/32 dev old table 77 proto 93",            // in another table
		"route add unreachable 10.99.0.0/16 proto 93",
		"-6 route add fd00:244:0:2::/64 dev old metric 1 proto 93",
		"-6 route add fd00:244:0:7::/64 dev weft0 proto 93",
		"rule add from 10.99.1.0/24 lookup 9338 priority 9338 protocol 93",
		"rule add from 10.244.1.0/24 lookup 9338 priority 9338 protocol 93",          // of an older weftd
		"rule add from 10.244.1.0/24 fwmark 1 lookup 9338 priority 5181 protocol 93", // with more to it
		"rule add to 10.244.0.0/16 lookup main suppress_prefixlength 0 priority 5182 protocol 93",
		"rule add fwmark 0x10000000 lookup 9338 priority 5180 protocol 93",
		"-6 rule add from fd99::/64 lookup 9338 protocol 93",
	} {
		ns.ip(t, args)
	}
	ns.nft(t, "add table inet weft; add chain inet weft old { type filter hook input priority 0; policy drop; }; add counter inet weft overlay_transit { packets 7 bytes 700; }")
	host := newHost()
	ns.apply(t, host, testNetwork())

	expect(t, "routes and rules", sorted(ns.routing(t)), sorted(testRouting))
	if addrs := ns.ip(t, "address show dev weft0"); strings.Contains(addrs, "10.244.9.9") {
		t.Errorf("a stale address is left: %s", addrs)
	}
	if table := ns.run(t, "nft", "list table inet weft"); strings.Contains(table, "chain old") {
		t.Errorf("a stale chain is left:\n%s", table)
	}
	if got := ns.drops(t)[dropTransit]; got != 7 {
		t.Errorf("the counter stands at %d, not at the predecessor's 7", got)
	}
}

func TestApplyRestoresWhatAnotherProgramFlushed(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	host := newHost()
	ns.apply(t, host, testNetwork())
	table := ns.tables(t)
	for _, damage := range []string{
		"nft flush ruleset",
		"nft flush chain inet weft from_underlay",
		"nft delete element inet weft cluster4 { 10.244.0.0/16 }",
		"nft delete table bridge weft",
		"nft flush chain bridge weft prerouting",
		"nft replace rule bridge weft forward handle $(nft -a list chain bridge weft forward | sed -n 's/.*# handle //p' | tail -1) accept",
		"ip route flush proto 93",
		"ip route flush table all proto 93",
		"ip -6 route flush table all proto 93",
		"ip rule flush",
		"ip address flush dev weft0",
		"ip link set weft0 down",
	} {
		ns.run(t, "sh", "-c", damage)
		ns.apply(t, host, testNetwork())
		got := ns.routing(t)
		if damage == "ip rule flush" {
			// It takes the main table's rule with it, which is not weft's to restore.
			ns.ip(t, "rule add from all lookup main priority 32766")
			ns.ip(t, "rule add from all lookup default priority 32767")
			got = ns.routing(t)
		}
		expect(t, "routes and rules after "+damage, sorted(got), sorted(testRouting))
		expect(t, "table after "+damage, ns.tables(t), table)
	}
}

func TestApplyAndRemoveTouchNothingOfOthers(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	ns.ip(t, "link add eth0 type veth peer name eth1")
	ns.ip(t, "link set eth0 up")
	for _, args := range []string{
		"route add 10.244.1.7/32 dev eth0 proto 94", // a local pod's
		"route add 10.244.1.8/32 dev eth0 proto static",
		"route add 10.244.2.0/24 dev eth0 metric 5 proto static",
		"route add unreachable 10.244.0.0/16 metric 7 proto static",
		"route add 192.0.2.20/32 dev eth0 table 9338 metric 5 proto static",
		"-6 route add fd00:244:0:2::/64 dev eth0 metric 5 proto static",
		"rule add from 10.244.1.0/24 lookup 9338 priority 9338 protocol 4",
		"rule add from 10.244.1.0/24 lookup 9338 priority 9339",
		"rule add to 10.244.0.0/16 lookup main priority 5182 protocol 4",
		"-6 rule add from fd00:244:0:1::/64 lookup 9338 priority 9338 protocol 4",
	} {
		ns.ip(t, args)
	}
	ns.nft(t, "add table ip weft; add chain ip weft input; add table inet weft2; add table inet kube-proxy")
	others := func() string {
		var all []string
		for _, args := range []string{"-4 route show table all", "-6 route show table all", "-4 rule show", "-6 rule show"} {
			for line := range strings.Lines(ns.ip(t, args)) {
				if !strings.Contains(line, "weft0") && !strings.Contains(line, "proto 93") {
					all = append(all, strings.TrimSpace(line))
				}
			}
		}
		return strings.Join(append(all, ns.run(t, "nft", "list table ip weft"), ns.run(t, "nft", "list table inet weft2"),
			ns.run(t, "nft", "list table inet kube-proxy")), "\n")
	}
	before := others()
	host := newHost()
	ns.apply(t, host, testNetwork())
	expect(t, "others' after Apply", others(), before)

	ns.do(t, func() {
		check(t, host.Remove(context.Background()))
		check(t, host.Remove(context.Background()))
	})
	expect(t, "others' after Remove", others(), before)
	if left := ns.ip(t, "-4 route show table all proto 93") + ns.ip(t, "-6 route show table all proto 93"); left != "" {
		t.Errorf("Remove left routes: %s", left)
	}
	if rules := ns.ip(t, "rule show") + ns.ip(t, "-6 rule show"); strings.Contains(rules, "proto 93") {
		t.Errorf("Remove left rules: %s", rules)
	}
	if tables := ns.run(t, "nft", "list tables"); strings.Contains(tables+"\n", "inet weft\n") || strings.Contains(tables, "bridge weft") {
		t.Errorf("Remove left a table: %s", tables)
	}
	ns.apply(t, host, testNetwork())
	if tables := ns.run(t, "nft", "list tables"); !strings.Contains(tables+"\n", "inet weft\n") || !strings.Contains(tables, "bridge weft") {
		t.Errorf("a table is missing after Remove and Apply: %s", tables)
	}
}

// A route of each peer's CIDR beats one that another overlay left, with a larger metric. One route
// of the cluster CIDR would lose to it.
func TestLeftoverRoutesLose(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	ns.ip(t, "link add eth0 type veth peer name eth1")
	ns.ip(t, "link set eth0 up")
	ns.ip(t, "route add 10.244.2.0/24 dev eth0 metric 32 proto bird")
	ns.ip(t, "-6 route add fd00:244:0:2::/64 dev eth0 metric 32 proto bird")
	if way := ns.ip(t, "route get 10.244.2.9"); !strings.Contains(way, "dev eth0") {
		t.Fatalf("before Apply, the other overlay's route does not count: %s", way)
	}
	ns.apply(t, newHost(), testNetwork())
	for _, to := range []string{"10.244.2.9", "fd00:244:0:2::9"} {
		if way := ns.ip(t, "route get "+to); !strings.Contains(way, "dev weft0") {
			t.Errorf("the way to a peer's pod is %s", way)
		}
	}
}

func TestAnotherProgramsRouteInTheWayIsNamed(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	ns.ip(t, "link add eth0 type veth peer name eth1")
	ns.ip(t, "link set eth0 up")
	ns.ip(t, "link set weft0 up")
	ns.ip(t, "route add 10.244.2.0/24 dev eth0 proto bird")
	// A stale route of weft's own behind another program's: replacing would hit the latter.
	ns.ip(t, "route add 10.244.3.0/24 dev eth0 proto static")
	ns.ip(t, "route append 10.244.3.0/24 dev weft0 proto 93")
	ns.ip(t, "-6 route add fd00:244:0:2::/64 dev eth0 metric 1 proto static")

	err := ns.tryApply(t, newHost(), testNetwork())
	for _, want := range []string{"10.244.2.0/24 dev eth0 proto bird", "10.244.3.0/24 dev eth0 proto static", "fd00:244:0:2::/64 dev eth0 proto static"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in the error: %v", want, err)
		}
	}
	routes := ns.ip(t, "route show table all") + ns.ip(t, "-6 route show")
	for _, want := range []string{
		"10.244.2.0/24 dev eth0 proto bird", "10.244.3.0/24 dev eth0 proto static",
		"192.0.2.20 dev weft0 table 9338 proto 93", "fd00:244:0:3::/64 dev weft0 proto 93",
	} {
		if !strings.Contains(routes, want) {
			t.Errorf("no route %q in:\n%s", want, routes)
		}
	}
}

// TestHostileListReachesNoRoute: what nodes register in order to get others' packets makes no
// Plan, and so no route, rule or address.
func TestHostileListReachesNoRoute(t *testing.T) {
	network := func(nodes ...control.Node) Network {
		t.Helper()
		n := testNetwork()
		state := control.State{Nodes: nodes, Registered: true}
		plan, err := control.NewPlan(state, control.Options{Node: "node1", ClusterCIDRs: n.ClusterCIDRs})
		if err != nil {
			t.Fatal(err)
		}
		n.Addresses, n.PodCIDRs, n.PeerCIDRs, n.PeerAddresses = plan.NodeAddresses, plan.PodCIDRs, plan.PeerCIDRs, plan.PeerAddresses
		n.Senders, n.PeerEndpoints = plan.Senders, plan.PeerEndpoints
		return n
	}
	node := func(name, endpoint string, podCIDRs ...string) control.Node {
		return control.Node{Name: name, Endpoint: netip.MustParseAddrPort(endpoint), PodCIDRs: prefixes(podCIDRs...)}
	}
	honest := []control.Node{
		node("node1", "192.0.2.1:9338", "10.244.1.0/24", "fd00:244:0:1::/64"),
		node("node2", "192.0.2.20:9338", "10.244.2.0/24", "fd00:244:0:2::/64"),
	}
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	host := newHost()
	ns.apply(t, host, network(honest...))
	want := sorted(ns.routing(t))
	for _, route := range []string{"10.244.2.0/24 dev weft0 ", "192.0.2.20 dev weft0 "} {
		if !strings.Contains(want, route) {
			t.Fatalf("the honest node has no route %q:\n%s", route, want)
		}
	}
	for _, hostile := range []control.Node{
		node("everything", "192.0.2.30:9338", "0.0.0.0/0"),
		node("outside", "192.0.2.30:9338", "198.51.100.0/24"),
		node("this-node", "192.0.2.30:9338", "10.244.1.128/25"),
		node("another", "192.0.2.30:9338", "10.244.2.0/25"),
		node("one-of-two", "192.0.2.30:9338", "10.244.3.0/24", "fd00:244:0:2::/64"),
		node("host-bits", "192.0.2.30:9338", "10.244.3.1/24"),
		node("mapped", "192.0.2.30:9338", "::ffff:10.244.3.0/120"),
		node("no-prefix", "192.0.2.30:9338", "10.244.3.1/32"),
		node("in-the-cluster", "10.244.2.7:9338", "10.244.3.0/24"),
		node("at-another", "192.0.2.20:9338", "10.244.3.0/24"),
		node("node2", "192.0.2.30:9338", "10.244.3.0/24"),
		node("../name", "192.0.2.30:9338", "10.244.3.0/24"),
	} {
		ns.apply(t, host, network(append(honest, hostile)...))
		expect(t, "routes and rules beside "+hostile.Name, sorted(ns.routing(t)), want)
	}
}

func TestApplyRefusesABadConfiguration(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	for name, spoil := range map[string]func(*Network){
		"no TUN":              func(n *Network) { n.TUN = "" },
		"a TUN for the shell": func(n *Network) { n.TUN = `x"; drop` },
		"a wildcard TUN":      func(n *Network) { n.TUN = "eth*" },
		"no port":             func(n *Network) { n.Port = 0 },
		"a wildcard trusted":  func(n *Network) { n.Trusted = []string{"wg*"} },
		"one mark":            func(n *Network) { n.MarkMask = 1 },
	} {
		n := testNetwork()
		spoil(&n)
		if err := ns.tryApply(t, newHost(), n); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if tables := ns.run(t, "nft", "list tables"); tables != "" {
		t.Errorf("a table was made: %s", tables)
	}
}
