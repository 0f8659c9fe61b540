package hostnet

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
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
		"one is wanted twice":          {nil, []route{two, two}, difference{missing: []route{two}}},
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
			opts := []cmp.Option{
				cmp.AllowUnexported(difference{}, route{}, routeKey{}), cmpopts.EquateEmpty(),
				cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
			}
			if diff := cmp.Diff(c.difference, got, opts...); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRoutesSurviveTheKernelsNotation(t *testing.T) {
	for _, r := range wantedRoutes(testNetwork(), 7) {
		if got := parseRoute(*r.netlink()); got != r {
			t.Errorf("%+v came back as %+v", r, got)
		}
	}
}
