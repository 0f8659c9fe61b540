package family

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFamilies(t *testing.T) {
	four, six := netip.MustParseAddr("10.244.1.1"), netip.MustParseAddr("fd00::1")
	cidr4, cidr6 := netip.PrefixFrom(four, 32), netip.PrefixFrom(six, 128)
	for _, tt := range []struct {
		family      Family
		addr        netip.Addr
		cidr        netip.Prefix
		text        string
		af          int
		unspecified string
	}{
		{IPv4, four, cidr4, "IPv4", unix.AF_INET, "0.0.0.0"},
		{IPv6, six, cidr6, "IPv6", unix.AF_INET6, "::"},
	} {
		f := tt.family
		if Of(tt.addr) != f || f.String() != tt.text || f.AF() != tt.af || f.Unspecified() != netip.MustParseAddr(tt.unspecified) {
			t.Errorf("%s: %s of %s is %d in the kernel, and has %s", tt.text, f, Of(tt.addr), f.AF(), f.Unspecified())
		}
		if got := f.First([]netip.Addr{six, four, six.Next(), four.Next()}); got != tt.addr {
			t.Errorf("%s: the first address is %s", tt.text, got)
		}
		if got := f.Prefixes([]netip.Prefix{cidr6, cidr4}); !slices.Equal(got, []netip.Prefix{tt.cidr}) {
			t.Errorf("%s: the prefixes are %s", tt.text, got)
		}
	}
	if got := IPv4.First([]netip.Addr{six}); got.IsValid() {
		t.Errorf("the first IPv4 address of none is %s", got)
	}
}
