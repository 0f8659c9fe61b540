package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/hostnet"
	"weft/internal/marks"
	"weft/internal/status"
)

func TestRoutesAreLines(t *testing.T) {
	var got strings.Builder
	err := printRoutes(&got, []status.RouteEntry{
		{Prefix: netip.MustParsePrefix("10.244.3.0/24"), Node: "node3", Problem: "the kernel has no route\x1b; `weft status` says why"},
		{Prefix: netip.MustParsePrefix("10.244.0.0/16"), Kernel: []hostnet.KernelRoute{{Type: "unreachable", Table: 254, Protocol: marks.RouteProtocol}}},
		{Prefix: netip.MustParsePrefix("10.244.1.0/24"), Node: "node1", Self: true, Kernel: []hostnet.KernelRoute{{Type: "unreachable", Table: 254, Protocol: marks.RouteProtocol}}},
		{Prefix: netip.MustParsePrefix("10.244.2.0/24"), Node: "node2", Kernel: []hostnet.KernelRoute{
			{Type: "unicast", Device: "weft0", MTU: 1300, Source: netip.MustParseAddr("10.244.1.1"), Table: 254, Protocol: marks.RouteProtocol}}},
		{Prefix: netip.MustParsePrefix("fd00:244::/48"), Kernel: []hostnet.KernelRoute{{Type: "unreachable", Device: "lo", Table: 254, Protocol: marks.RouteProtocol}}},
		{Prefix: netip.MustParsePrefix("192.168.77.2/32"), Node: "node2", Kernel: []hostnet.KernelRoute{{Type: "unicast", Device: "eth0", Table: marks.RouteTable}}},
	})
	want := `
PROBLEM  10.244.3.0/24 (node3): the kernel has no route` + "\ufffd" + "; `weft status` says why" + `

PREFIX           NODE               KERNEL               DEVICE  MTU   SOURCE      TABLE
10.244.3.0/24    node3              -                    -       -     -           -
10.244.0.0/16    no node            unreachable          -       -     -           main
10.244.1.0/24    node1 (this node)  unreachable          -       -     -           main
10.244.2.0/24    node2              unicast              weft0   1300  10.244.1.1  main
fd00:244::/48    no node            unreachable          -       -     -           main
192.168.77.2/32  node2              unicast, not weft's  eth0    -     -           9338
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), got.String()); err != nil || diff != "" {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
	if err := printRoutes(fullDisk(t), nil); err == nil {
		t.Error("a full disk was not noticed")
	}
}

func TestRoutesMisuse(t *testing.T) {
	code, _, stderr := asWeft(t, "routes", "10.244.2")
	if want := `weft: "10.244.2" is neither an address nor a prefix; write one like 10.244.2.7 or 10.244.2.0/24`; code != 2 || !strings.HasPrefix(stderr, want) {
		t.Errorf("exit status %d, %q; want 2, %q", code, stderr, want)
	}
}
