package hostnet

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"weft/internal/testnet"
)

// 5,000 peers with a pod CIDR of each family are the size of the largest clusters
// that Kubernetes supports.
func TestApplyWithManyPeers(t *testing.T) {
	ns := newNamespace(t)
	ns.openTUN(t, "weft0")
	n := testNetwork()
	n.ClusterCIDRs = prefixes("10.0.0.0/8", "fd00:244::/32")
	n.PeerCIDRs, n.PeerAddresses = nil, nil
	peers := testnet.Sampled(200, 5000)
	for i := range peers {
		hi, lo := byte(i>>8), byte(i)
		n.PeerCIDRs = append(n.PeerCIDRs,
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, hi, lo, 0}), 24),
			netip.MustParsePrefix(fmt.Sprintf("fd00:244:1:%x::/64", i)))
		n.PeerAddresses = append(n.PeerAddresses, netip.AddrFrom4([4]byte{172, 16, hi, lo}))
	}
	host := newHost()
	timed := func(what string) {
		t.Helper()
		start := time.Now()
		ns.apply(t, host, n)
		t.Logf("%-32s %v", what, time.Since(start).Round(time.Millisecond))
	}
	timed(fmt.Sprintf("%d routes from nothing", 3*peers))
	timed("nothing to do")
	n.PeerCIDRs, n.PeerAddresses = n.PeerCIDRs[2:], n.PeerAddresses[1:]
	timed("one peer left")
	n.Addresses = addresses("10.244.1.2", "fd00:244:0:1::2")
	timed("every preferred source changed")
	host = newHost()
	timed("a restart")
	n.PeerCIDRs, n.PeerAddresses = nil, nil
	timed("every peer left")
}
