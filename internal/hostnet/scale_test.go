package hostnet

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// 5,000 peers with a pod CIDR of each family are the size of the largest clusters
// that Kubernetes supports.
func TestApplyIsQuickWith5000Peers(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	n := testNetwork()
	n.ClusterCIDRs = prefixes("10.0.0.0/8", "fd00:244::/32")
	n.PeerCIDRs, n.PeerAddresses = nil, nil
	for i := range 5000 {
		hi, lo := byte(i>>8), byte(i)
		n.PeerCIDRs = append(n.PeerCIDRs,
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, hi, lo, 0}), 24),
			netip.MustParsePrefix(fmt.Sprintf("fd00:244:1:%x::/64", i)))
		n.PeerAddresses = append(n.PeerAddresses, netip.AddrFrom4([4]byte{172, 16, hi, lo}))
	}
	host := newHost()
	timed := func(what string, limit time.Duration) {
		t.Helper()
		start := time.Now()
		ns.apply(t, host, n)
		took := time.Since(start)
		t.Logf("%-32s %v", what, took.Round(time.Millisecond))
		if took > limit {
			t.Errorf("%s took %v, more than %v", what, took, limit)
		}
	}
	// The limits leave room for the race detector and a busy machine.
	timed("15,000 routes from nothing", 15*time.Second)
	timed("nothing to do", 5*time.Second)
	n.PeerCIDRs, n.PeerAddresses = n.PeerCIDRs[2:], n.PeerAddresses[1:]
	timed("one peer left", 5*time.Second)
	n.Addresses = addresses("10.244.1.2", "fd00:244:0:1::2")
	timed("every preferred source changed", 15*time.Second)
	host = newHost()
	timed("a restart", 5*time.Second)
	n.PeerCIDRs, n.PeerAddresses = nil, nil
	timed("every peer left", 15*time.Second)
}
