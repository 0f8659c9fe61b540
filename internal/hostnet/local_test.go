package hostnet

import (
	"net/netip"
	"testing"
)

// Of this node only weftd sends to weft's port of a node: to every address and port of a
// peer, by way of a Service too, and over the loopback under a peer's address.
func TestLocalSendersAreNotWeftd(t *testing.T) {
	s := newSite(t)
	s.node.ip(t, "address add 192.0.2.77/32 dev lo")
	s.node.nft(t, `table inet services {
		chain output {
			type nat hook output priority -100;
			meta nfproto ipv4 udp dport 5001 dnat ip to 192.0.2.30:9400
			meta nfproto ipv6 udp dport 5001 dnat ip6 to [2001:db8::30]:9400
			meta nfproto ipv4 udp dport 5002 dnat ip to 192.0.2.1:9338
			meta nfproto ipv6 udp dport 5002 dnat ip6 to [2001:db8::1]:9338
		}
	}`)
	for _, to := range s.network.PeerEndpoints {
		s.dropped(t, s.node, anySource, to.Addr(), to.Port(), dropLocalSender)
	}
	forEachFamily(t, func(t *testing.T, a addressing) {
		s.dropped(t, s.node, anySource, a.outside, 5001, dropLocalSender)
		s.dropped(t, s.node, anySource, a.outside, 5002, dropLocalSender)
		s.dropped(t, s.node, anySource, a.node, 9338, dropLocalSender)
		s.dropped(t, s.node, a.remoteNode, a.node, 9338, dropLocalSender)
		s.dropped(t, s.node, anySource, a.overlay, 9338, dropLocalSender)
		// In a pod's name, be it to a pod or to the outside.
		for _, source := range []netip.Addr{a.pod1, a.remotePod, a.absentPod} {
			for _, to := range []netip.Addr{a.remotePod, a.pod2, a.outside} {
				s.dropped(t, s.node, source, to, echoPort, dropLocalSpoof)
			}
		}
		// All else is the host's own business.
		sees(t, s.node, anySource, a.outside, 9338, a.node)
		sees(t, s.node, anySource, a.remotePod, 9338, a.overlay)
		sees(t, s.node, a.overlay, a.pod1, echoPort, a.overlay)
		s.node.do(t, func() {
			conn := asWeftd(t, a.node, 50000)
			defer conn.Close()
			for _, to := range s.network.PeerEndpoints {
				if to.Addr().Is4() != a.node.Is4() {
					continue
				}
				if _, err := conn.WriteToUDPAddrPort([]byte("outer"), to); err != nil {
					t.Errorf("weftd to %s: %v", to, err)
				}
			}
		})
	})
}
