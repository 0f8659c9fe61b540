package etcd

import (
	"fmt"
	"net/netip"
	"testing"

	"go4.org/netipx"

	"weft/internal/family"
	"weft/internal/strict"
)

// claimsOf are claims by nodes a, b, c, … in this order.
func claimsOf(o *Options, texts ...string) *listing {
	l := &listing{options: o, claims: map[family.Family]map[string]claim{family.IPv4: {}, family.IPv6: {}}, entries: map[string]entry{}}
	for i, p := range prefixes(texts...) {
		name := fmt.Sprintf("n%d", i)
		l.claims[family.Of(p.Addr())][name] = claim{raw: p.String(), revision: int64(10 + i), cidr: p}
	}
	return l
}

func TestAFreeCIDRIsFoundIfThereIsOne(t *testing.T) {
	for _, tt := range []struct {
		cluster string
		length  int
		claimed []string
		want    []string // one of these; empty: none
	}{
		{"10.244.0.0/16", 24, nil, []string{"any"}},
		{"10.244.0.0/23", 24, []string{"10.244.0.0/24"}, []string{"10.244.1.0/24"}},
		{"10.244.0.0/23", 24, []string{"10.244.1.0/24"}, []string{"10.244.0.0/24"}},
		{"10.244.0.0/23", 24, []string{"10.244.0.0/24", "10.244.1.0/24"}, nil},
		{"10.244.0.0/22", 24, []string{"10.244.0.0/23", "10.244.2.128/30"}, []string{"10.244.3.0/24"}},
		{"10.244.0.0/22", 26, []string{"10.244.0.0/24", "10.244.2.0/23", "10.244.1.0/26", "10.244.1.64/30", "10.244.1.128/25"}, nil},
		{"10.244.0.0/22", 20, nil, nil},
		{"10.244.0.0/24", 24, nil, []string{"10.244.0.0/24"}},
		{"0.0.0.0/0", 1, []string{"0.0.0.0/1"}, []string{"128.0.0.0/1"}},
		{"fd00:244::/52", 112, []string{"fd00:244::/53"}, []string{"any"}},
		{"fd00:244::/48", 112, []string{"fd00:244::/49", "fd00:244:0:8000::/50", "fd00:244:0:c000::/51", "fd00:244:0:e000::/52", "fd00:244:0:f000::/52"}, nil},
		{"fd00:244::/62", 64, []string{"fd00:244::/64", "fd00:244:0:1::/80", "fd00:244:0:3:ffff::/126"}, []string{"fd00:244:0:2::/64"}},
		{"fd00::/8", 126, []string{"fd00::/9"}, []string{"any"}},
		{"fd00::/8", 126, []string{"fd00::1:0/112"}, []string{"any"}},
		{"::/0", 60, []string{"::/1"}, []string{"any"}},
	} {
		o := &Options{ClusterCIDRs: prefixes(tt.cluster)}
		standing := claimsOf(o, tt.claimed...).standing()
		for i := range 50 { // from many places
			got, ok := standing.free(o.ClusterCIDRs, tt.length, fmt.Sprintf("node%d", i))
			fits := ok && got == got.Masked() && got.Bits() == tt.length && strict.Within(got, o.ClusterCIDRs) && !standing.OverlapsPrefix(got)
			if len(tt.want) == 0 && ok || len(tt.want) > 0 && !fits || fits && tt.want[0] != "any" && got.String() != tt.want[0] {
				t.Fatalf("a /%d of %s beside %v: %v, %v; want %v", tt.length, tt.cluster, tt.claimed, got, ok, tt.want)
			}
		}
	}
}

func TestEveryCIDRIsGivenOutOnce(t *testing.T) {
	for _, tt := range []struct {
		cluster string
		length  int
		count   int
	}{{"10.244.0.0/16", 24, 256}, {"10.244.0.0/20", 30, 1024}, {"fd00:244::/54", 64, 1024}, {"fd00:244::/56", 66, 1024}, {"fd00:244::ff00/120", 126, 64}} {
		o := &Options{ClusterCIDRs: prefixes(tt.cluster)}
		standing := new(standing)
		for i := range tt.count {
			name := fmt.Sprintf("node%d", i)
			p, ok := standing.free(o.ClusterCIDRs, tt.length, name)
			if !ok || standing.OverlapsPrefix(p) || !strict.Within(p, o.ClusterCIDRs) {
				t.Fatalf("number %d of %s: %v, %v", i, tt.cluster, p, ok)
			}
			standing.Insert(p, name)
		}
		if p, ok := standing.free(o.ClusterCIDRs, tt.length, "one-more"); ok {
			t.Errorf("%s is full, but has %s", tt.cluster, p)
		}
	}
}

func TestTheFirstClusterCIDRThatHasRoomIsTaken(t *testing.T) {
	o := &Options{ClusterCIDRs: prefixes("10.244.0.0/24", "10.1.0.0/28", "10.245.0.0/16")}
	for claimed, want := range map[string]string{"10.9.0.0/24": "10.244.0.0/24", "10.244.0.128/25": "10.245.0.0/16"} {
		p, ok := claimsOf(o, claimed).standing().free(o.ClusterCIDRs, 24, "node1")
		if !ok || !netip.MustParsePrefix(want).Contains(p.Addr()) {
			t.Errorf("beside %s: %v, %v; want one of %s", claimed, p, ok, want)
		}
	}
}

func TestOfClaimsThatOverlapTheFirstStands(t *testing.T) {
	o := &Options{ClusterCIDRs: prefixes("10.244.0.0/16", "fd00:244::/48")}
	standing := claimsOf(o, "10.244.1.0/24", "10.244.0.0/16", "10.244.1.128/25", "10.244.2.0/24", "10.244.1.0/24", "10.0.0.0/8", "fd00:244::/64").standing()
	got := fmt.Sprint(standing.Size())
	for p, name := range standing.AllSorted() {
		got += fmt.Sprint(" ", p, name)
	}
	if want := "3 10.244.1.0/24n0 10.244.2.0/24n3 fd00:244::/64n6"; got != want {
		t.Errorf("got %s; want %s", got, want)
	}
}

func TestTheSearchIsFastAmongThousandsOfClaims(t *testing.T) {
	o := &Options{ClusterCIDRs: prefixes("fd00::/24")}
	l := claimsOf(o)
	p := netip.PrefixFrom(o.ClusterCIDRs[0].Addr(), 64)
	for i := range 5000 {
		l.claims[family.IPv6][fmt.Sprint("n", i)] = claim{revision: int64(i), cidr: p}
		p = netip.PrefixFrom(netipx.PrefixLastIP(p).Next(), 64)
	}
	// A search through all 2^40 CIDRs would not end.
	if p, ok := l.standing().free(o.ClusterCIDRs, 64, "node1"); !ok {
		t.Errorf("%v, %v", p, ok)
	}
	full := new(standing)
	for bits := 25; bits <= 64; bits++ { // fd00::/24 without its first /64
		lower := netip.PrefixFrom(o.ClusterCIDRs[0].Addr(), bits)
		full.Insert(netip.PrefixFrom(netipx.PrefixLastIP(lower).Next(), bits), "other")
	}
	if p, ok := full.free(o.ClusterCIDRs, 64, "node1"); !ok || p.String() != "fd00::/64" {
		t.Errorf("the only free one: %v, %v", p, ok)
	}
}
