package hostnet

import (
	"cmp"
	"net/netip"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestDiffRoutes(t *testing.T) {
	key := func(dst string) routeKey { return routeKey{254, netip.MustParsePrefix(dst), 0} }
	src := netip.MustParseAddr("10.244.1.1")
	var (
		two     = route{routeKey: key("10.244.2.0/24"), link: 7, src: src}
		three   = route{routeKey: key("10.244.3.0/24"), link: 7, src: src}
		oldDev  = route{routeKey: two.routeKey, link: 6, src: src}
		oldSrc  = route{routeKey: two.routeKey, link: 7}
		gateway = route{routeKey: two.routeKey, link: 7, src: src, foreign: true}
		table   = route{routeKey: routeKey{9338, two.dst, 0}, link: 7, src: src}
		metric  = route{routeKey: routeKey{254, two.dst, 5}, link: 7, src: src}
	)
	for name, c := range map[string]struct {
		have, want []route
		difference difference
	}{
		"nothing":                      {},
		"all there":                    {[]route{two, three}, []route{three, two}, difference{}},
		"one is missing":               {[]route{two}, []route{two, three}, difference{missing: []route{three}}},
		"one is stale":                 {[]route{two, three}, []route{two}, difference{stale: []route{three}}},
		"another device":               {[]route{oldDev}, []route{two}, difference{changed: []route{two}}},
		"another source":               {[]route{oldSrc}, []route{two}, difference{changed: []route{two}}},
		"a gateway":                    {[]route{gateway}, []route{two}, difference{changed: []route{two}}},
		"another table is another key": {[]route{table}, []route{two}, difference{missing: []route{two}, stale: []route{table}}},
		"so is another metric":         {[]route{metric}, []route{two}, difference{missing: []route{two}, stale: []route{metric}}},
		"right and wrong with one key": {[]route{oldDev, two}, []route{two}, difference{stale: []route{oldDev}}},
		"two wrong with one key":       {[]route{oldDev, oldSrc}, []route{two}, difference{changed: []route{two}, stale: []route{oldSrc}}},
	} {
		t.Run(name, func(t *testing.T) {
			got := diffRoutes(c.have, c.want)
			opts := []gocmp.Option{
				gocmp.AllowUnexported(difference{}, route{}, routeKey{}), cmpopts.EquateEmpty(),
				cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
			}
			if diff := gocmp.Diff(c.difference, got, opts...); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWholeClusterCIDRNeedsOneRoute(t *testing.T) {
	all := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
	if got := wantedRoutes(Network{ClusterCIDRs: all, PodCIDRs: all}, 7); len(got) != 1 {
		t.Errorf("%+v", got)
	}
}

func TestRoutesSurviveTheKernelsNotation(t *testing.T) {
	n := testNetwork()
	n.MTUs = map[netip.Prefix]int{n.PeerCIDRs[0]: 1300}
	for _, r := range wantedRoutes(n, 7) {
		if got := parseRoute(*r.netlink()); got != r {
			t.Errorf("%+v came back as %+v", r, got)
		}
	}
}

func TestWhatListsHaveInCommonIsSetApart(t *testing.T) {
	for _, c := range []struct{ a, b, onlyA, onlyB string }{
		{"", "", "", ""},
		{"abc", "abc", "", ""},
		{"abc", "", "abc", ""},
		{"", "abc", "", "abc"},
		{"acd", "abd", "c", "b"},
		{"abz", "bcd", "az", "cd"},
	} {
		onlyA, onlyB := apart([]byte(c.a), []byte(c.b), cmp.Compare)
		if string(onlyA) != c.onlyA || string(onlyB) != c.onlyB {
			t.Errorf("%q and %q: %q and %q", c.a, c.b, onlyA, onlyB)
		}
	}
}
