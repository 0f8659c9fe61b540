package ipam

import (
	"net/netip"
	"testing"
)

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

// A range gives out every address but those with another meaning.
func TestAddressesOfARange(t *testing.T) {
	tests := []struct {
		prefix      string
		first, last string
	}{
		{"10.0.0.0/24", "10.0.0.1", "10.0.0.254"},
		{"10.0.0.77/24", "10.0.0.1", "10.0.0.254"},
		{"10.0.0.0/30", "10.0.0.1", "10.0.0.2"},
		{"10.0.0.4/31", "10.0.0.4", "10.0.0.5"},
		{"10.0.0.4/32", "10.0.0.4", "10.0.0.4"},
		{"0.0.0.0/0", "0.0.0.1", "255.255.255.254"},
		{"fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff"},
		{"fd00::/126", "fd00::1", "fd00::3"},
		{"fd00::2/127", "fd00::2", "fd00::3"},
		{"fd00::2/128", "fd00::2", "fd00::2"},
		{"::/0", "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
	}
	for _, tt := range tests {
		t.Run(tt.prefix, func(t *testing.T) {
			p, err := newSpan(netip.MustParsePrefix(tt.prefix))
			if err != nil {
				t.Fatal(err)
			}
			if p.first.String() != tt.first || p.last.String() != tt.last {
				t.Errorf("got %s to %s, want %s to %s", p.first, p.last, tt.first, tt.last)
			}
			if got := p.after(p.last); got != p.first {
				t.Errorf("behind the last address comes %s, want %s", got, p.first)
			}
		})
	}
}

func TestRangesThatAreNoRangesAreRefused(t *testing.T) {
	tests := map[string][]netip.Prefix{
		"none at all":        nil,
		"an invalid prefix":  {netip.Prefix{}},
		"IPv4 mapped to six": {netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.0"), 120)},
	}
	for name, ranges := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := (Pool{Ranges: ranges}).families(); err == nil {
				t.Error("accepted")
			}
		})
	}
}

// A search visits only what is taken, however large the range is.
func TestSearchOfALargeRange(t *testing.T) {
	p, err := newSpan(netip.MustParsePrefix("fd00::/16"))
	if err != nil {
		t.Fatal(err)
	}
	skip := map[netip.Addr]bool{}
	addr := p.first
	for range 5000 {
		skip[addr] = true
		addr = addr.Next()
	}
	// A search through the 2^96 addresses of fd00:1::/32 would not end.
	got, ok := p.search(netip.Addr{}, skip, prefixes("fd00:1::/32"))
	if !ok || got != addr {
		t.Errorf("found %s, %t; want %s", got, ok, addr)
	}
}

// A lease fits only with one usable address of each family.
func TestLeaseFitsPool(t *testing.T) {
	p := pool(prefixes("10.0.0.0/24", "10.0.2.0/24", "fd00::/64"), addrs("10.0.0.1")...)
	families, err := p.families()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name      string
		addresses []netip.Addr
		want      bool
	}{
		{"one of each", addrs("10.0.0.9", "fd00::9"), true},
		{"from the second range", addrs("10.0.2.9", "fd00::9"), true},
		{"a family is missing", addrs("10.0.0.9"), false},
		{"two of one family", addrs("10.0.0.9", "10.0.0.10"), false},
		{"outside the ranges", addrs("10.0.1.9", "fd00::9"), false},
		{"reserved since", addrs("10.0.0.1", "fd00::9"), false},
		{"the broadcast address", addrs("10.0.0.255", "fd00::9"), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := p.fits(families, tt.addresses, nil); got != tt.want {
				t.Errorf("got %t, want %t", got, tt.want)
			}
		})
	}
}
