package daemon

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/fib"
	"weft/internal/hostnet"
	"weft/internal/marks"
	"weft/peer"
)

func TestRoutesThatDisagreeComeFirst(t *testing.T) {
	prefix := netip.MustParsePrefix
	self := &peer.Peer{Name: "node1", Endpoint: netip.MustParseAddrPort("192.168.77.1:9338"), Prefixes: []netip.Prefix{prefix("10.244.1.0/24"), prefix("192.168.77.1/32")}}
	node := func(n int) *peer.Peer {
		return &peer.Peer{Name: fmt.Sprintf("node%d", n), Key: peer.Fingerprint{byte(n)}, Endpoint: netip.MustParseAddrPort(fmt.Sprintf("192.168.77.%d:9338", n)),
			Prefixes: []netip.Prefix{prefix(fmt.Sprintf("10.244.%d.0/24", n)), prefix(fmt.Sprintf("192.168.77.%d/32", n)), prefix(fmt.Sprintf("fd00:77::%d/128", n))}}
	}
	table, err := fib.New(self, []*peer.Peer{node(2), node(3), node(4)})
	if err != nil {
		t.Fatal(err)
	}
	ours := func(text, device string, table int) hostnet.KernelRoute {
		return hostnet.KernelRoute{Prefix: prefix(text), Type: "unicast", Device: device, Table: table, Protocol: marks.RouteProtocol}
	}
	foreign := func(text, device string, metric int) hostnet.KernelRoute {
		return hostnet.KernelRoute{Prefix: prefix(text), Type: "unicast", Device: device, Table: 254, Metric: metric, Protocol: 4}
	}
	kernel := []hostnet.KernelRoute{
		{Prefix: prefix("10.244.0.0/16"), Type: "unreachable", Table: 254, Protocol: marks.RouteProtocol},
		{Prefix: prefix("10.244.1.0/24"), Type: "unreachable", Table: 254, Protocol: marks.RouteProtocol},
		{Prefix: prefix("10.244.1.7/32"), Type: "unicast", Device: "weft0123456789a", Table: 254, Protocol: marks.PodRouteProtocol},
		foreign("10.244.2.0/24", "flannel.1", 1024), // it loses
		ours("10.244.2.0/24", "weft0", 254),
		foreign("10.244.3.0/24", "eth0", 0),
		foreign("10.244.2.128/25", "wg0", 0),
		ours("192.168.77.2/32", "weft0", marks.RouteTable),
		ours("192.168.77.3/32", "weft0", marks.RouteTable),
		ours("192.168.77.4/32", "weft0", marks.RouteTable),
	}
	var got []string
	for _, e := range compareRoutes(table, kernel, "weft0", []netip.Prefix{prefix("10.244.0.0/16")}) {
		got = append(got, fmt.Sprintf("%s %s: %s", e.Prefix, e.Node, e.Problem))
	}
	want := []string{
		"10.244.2.128/25 node2: another program's route takes packets to 10.244.2.128/25 from the overlay: 10.244.2.128/25 dev wg0 table main; remove it, or change the CIDR",
		"10.244.3.0/24 node3: another program's route is used: 10.244.3.0/24 dev eth0 table main; remove it, or change the CIDR",
		"10.244.4.0/24 node4: the kernel has no route; `weft status` says why",
		"10.244.0.0/16 : ",
		"10.244.1.0/24 node1: ",
		"10.244.2.0/24 node2: ",
		"192.168.77.1/32 node1: ",
		"192.168.77.2/32 node2: ",
		"192.168.77.3/32 node3: ",
		"192.168.77.4/32 node4: ",
		"fd00:77::2/128 node2: ",
		"fd00:77::3/128 node3: ",
		"fd00:77::4/128 node4: ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
