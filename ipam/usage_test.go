package ipam

import (
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/family"
)

// The size of a pool is how many leases it gives out before it is exhausted.
func TestSizeOfAPool(t *testing.T) {
	for _, tt := range []struct {
		name             string
		ranges, reserved []netip.Prefix
		want             []PoolUsage
	}{
		{"no range", nil, prefixes("10.0.0.0/30"), nil},
		{"a subnet", prefixes("10.0.0.0/24"), nil, []PoolUsage{{Family: family.IPv4, Size: 254}}},
		{"both families", prefixes("fd00::/120", "10.0.0.0/29"), nil, []PoolUsage{{Family: family.IPv4, Size: 6}, {Family: family.IPv6, Size: 255}}},
		{"two ranges of one family", prefixes("10.0.0.0/30", "10.0.1.4/31"), nil, []PoolUsage{{Family: family.IPv4, Size: 4}}},
		{"reserved addresses that overlap", prefixes("10.0.0.0/29"), prefixes("10.0.0.1/32", "10.0.0.0/30", "10.0.9.0/24", "fd00::/16"), []PoolUsage{{Family: family.IPv4, Size: 3}}},
		{"all reserved", prefixes("10.0.0.0/29"), prefixes("10.0.0.0/16"), []PoolUsage{{Family: family.IPv4}}},
		{"2^64 - 1 addresses", prefixes("fd00::/64"), nil, []PoolUsage{{Family: family.IPv6, Size: math.MaxUint64}}},
		{"the node's own is one fewer", prefixes("fd00::/64"), prefixes("fd00::1/128"), []PoolUsage{{Family: family.IPv6, Size: math.MaxUint64 - 1}}},
		{"more than 2^64", prefixes("fd00::/48"), nil, []PoolUsage{{Family: family.IPv6, Size: math.MaxUint64}}},
		{"more than 2^64 in two ranges", prefixes("fd00::/64", "fd01::/64"), nil, []PoolUsage{{Family: family.IPv6, Size: math.MaxUint64}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := open(t, t.TempDir()).Usage(Pool{Ranges: tt.ranges, Reserved: tt.reserved})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got.Pools); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Leases and cooldowns outside the pool, of a former pod CIDR, take nothing from it.
func TestUsageOfAPool(t *testing.T) {
	c := &clock{moment{"boot", time.Hour}}
	s := c.install(open(t, t.TempDir()))
	p := pool(prefixes("10.0.0.0/29", "fd00::/125"), addrs("10.0.0.1")...)
	p.Cooldown = time.Minute
	former := pool(prefixes("10.9.0.0/29", "fd09::/125"))
	for n := range 3 {
		if _, err := s.Acquire(t.Context(), wanted(n), p); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 2 {
		if _, err := s.Acquire(t.Context(), wanted(10+n), former); err != nil {
			t.Fatal(err)
		}
	}
	release(t, s, 0)
	release(t, s, 10)
	got, err := s.Usage(p)
	if err != nil {
		t.Fatal(err)
	}
	want := Usage{Leases: 3, CoolingDown: 4, Pools: []PoolUsage{
		{Family: family.IPv4, Size: 5, Leased: 2, CoolingDown: 1}, {Family: family.IPv6, Size: 7, Leased: 2, CoolingDown: 1},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if free := got.Pools[0].Free(); free != 2 {
		t.Errorf("%d free, want 2", free)
	}
}
