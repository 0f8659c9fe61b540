package hostnet

import (
	"strings"
	"testing"

	"weft/internal/marks"
	"weft/internal/nftable"
)

func (ns namespace) protect(t testing.TB, h *Host, n Network) {
	t.Helper()
	ns.do(t, func() { check(t, h.Protect(t.Context(), n)) })
}

func (ns namespace) identity(t testing.TB) (id nftable.Identity) {
	t.Helper()
	ns.do(t, func() {
		var err error
		id, err = nftable.Of(nftable.Inet, marks.Table)
		check(t, err)
	})
	return id
}

// configured is what the configuration alone says of testNetwork.
func configured() Network {
	n := testNetwork()
	return Network{TUN: n.TUN, ClusterCIDRs: n.ClusterCIDRs, Port: n.Port, MarkMask: n.MarkMask, RandomPorts: n.RandomPorts}
}

// TestProtectNeedsNoNodes: before it is known which nodes there are, and without the device,
// the guard stands and nothing leads from the cluster CIDRs to the default gateway.
func TestProtectNeedsNoNodes(t *testing.T) {
	ns := newNamespace(t)
	host := newHost()
	ns.protect(t, host, configured())
	expect(t, "routes", sorted(ns.routing(t)), sorted(`unreachable 10.244.0.0/16 metric 1073741824
unreachable fd00:244::/48 dev lo metric 1073741824 pref medium
0:	from all lookup local
32766:	from all lookup main
32767:	from all lookup default
0:	from all lookup local
32766:	from all lookup main`))
	if got, want := ns.identity(t), host.Guard(); got != want || want.Rules == 0 {
		t.Errorf("the kernel has the guard table %+v, the host knows of %+v", got, want)
	}
}

// TestProtectKeepsWhatIsKnown: a weftd that starts again knows no node yet. The guard that
// its predecessor left stays as it is; one of another version is replaced, and passes on
// what its sets hold.
func TestProtectKeepsWhatIsKnown(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	ns.apply(t, newHost(), testNetwork())
	list := func() string { return ns.run(t, "nft", "list", "table", "inet", "weft") }
	routing, before, id := ns.routing(t), list(), ns.identity(t)

	events := ns.watch(t)
	ns.protect(t, newHost(), configured())
	if n := events(); n > 0 {
		t.Errorf("%d events of rtnetlink or nftables: something was made again", n)
	}
	expect(t, "the guard table", list(), before)

	ns.run(t, "nft", "insert", "rule", "inet", "weft", "forward", "accept") // an older weftd, or another program
	ns.protect(t, newHost(), configured())
	expect(t, "the guard table after it was replaced", list(), before)
	if got := ns.identity(t); got != id {
		t.Errorf("the replaced table is %+v, it was %+v", got, id)
	}
	expect(t, "routes and rules", ns.routing(t), routing)

	// Another configuration: what the sets hold and still makes sense stays.
	other := configured()
	other.Port = 9999
	other.ClusterCIDRs = other.ClusterCIDRs[:1]
	ns.protect(t, newHost(), other)
	now := list()
	for _, want := range []string{"udp dport 9999", "10.244.1.0/24", "192.0.2.20", "2001:db8::20"} {
		if !strings.Contains(now, want) {
			t.Errorf("no %q in the replaced table:\n%s", want, now)
		}
	}
	if strings.Contains(now, "fd00:244") {
		t.Errorf("pod CIDRs outside the cluster CIDRs are in the replaced table:\n%s", now)
	}
}

// TestAdjacentCIDRsStayApart: nft 1.0.6 could not make the table with them, and merged ones
// are read as something that is no CIDR.
func TestAdjacentCIDRsStayApart(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	n := testNetwork()
	n.ClusterCIDRs = append(n.ClusterCIDRs, prefixes("10.245.0.0/16", "fd00:245::/48")...)
	n.PodCIDRs = append(n.PodCIDRs, prefixes("10.244.0.0/24", "10.244.4.0/24", "10.244.5.0/24", "fd00:244:0:4::/64", "fd00:244:0:5::/64")...)
	config := configured()
	config.ClusterCIDRs = n.ClusterCIDRs
	ns.apply(t, newHost(), n)
	list := func() string { return ns.run(t, "nft", "list", "table", "inet", "weft") }
	before := list()
	ns.protect(t, newHost(), config)
	expect(t, "the guard table", list(), before)
	ns.run(t, "nft", "insert", "rule", "inet", "weft", "forward", "accept")
	ns.protect(t, newHost(), config)
	expect(t, "the guard table after it was replaced", list(), before)
}

// TestStaleSecondTableGoes: a weftd that was killed while it replaced the guard leaves a second
// table, whose rules are never updated.
func TestStaleSecondTableGoes(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	stale := "table inet " + marks.NextTable + " { chain forward { type filter hook forward priority 0; drop; }; }"
	expectGone := func(after string) {
		t.Helper()
		if tables := ns.run(t, "nft", "list tables"); strings.Contains(tables, marks.NextTable) {
			t.Errorf("after %s there are %s", after, tables)
		}
		ns.nft(t, stale)
	}
	ns.nft(t, stale)
	ns.protect(t, newHost(), configured())
	expectGone("Protect without a guard")
	ns.protect(t, newHost(), configured())
	expectGone("Protect with one")
	ns.apply(t, newHost(), testNetwork())
	expectGone("Apply with one")
	ns.nft(t, "delete table inet weft")
	ns.apply(t, newHost(), testNetwork())
	expectGone("Apply without one")
}

// TestProtectReplacesUnreadableSets: a table of weft's name whose sets hold something else
// keeps no guard from being made.
func TestProtectReplacesUnreadableSets(t *testing.T) {
	ns := newNamespace(t)
	ns.nft(t, `table inet weft {
		set pods4 { type ipv4_addr; flags interval; elements = { 10.244.1.0-10.244.3.255 }; }
		set endpoints4 { type ipv4_addr; elements = { 192.0.2.20 }; }
		set ports { type ifname; elements = { "lo" }; }
	}`)
	host := newHost()
	ns.protect(t, host, configured())
	if got, want := ns.identity(t), host.Guard(); got != want || want.Rules == 0 {
		t.Errorf("the kernel has the guard table %+v, the host knows of %+v", got, want)
	}
}
