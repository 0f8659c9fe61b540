package control

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"weft/internal/warning"
	"weft/peer"
)

// TestEndpointsThatCannotWorkWarn: an endpoint of this node at which nothing arrives, and peers
// to which nothing can be sent, for both families.
func TestEndpointsThatCannotWorkWarn(t *testing.T) {
	peer := func(name, endpoint string) *peer.Peer {
		return &peer.Peer{Name: name, Endpoint: netip.MustParseAddrPort(endpoint)}
	}
	host := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.168.77.1"), netip.MustParseAddr("192.168.78.1"), netip.MustParseAddr("fd00:77::1")}
	for _, tt := range []struct {
		name, self, listen string
		peers              []string
		unknown            bool // the host's addresses
		registered         bool
		codes              []string
		part               string // of the first text
	}{
		{"all is well", "192.168.77.1:9338", "0.0.0.0:9338", []string{"192.168.77.2:9338"}, false, false, nil, ""},
		{"all is well in IPv6", "[fd00:77::1]:9338", "[::]:9338", []string{"[fd00:77::2]:9338", "192.168.77.2:9338"}, false, false, nil, ""},
		{"its own address alone", "192.168.77.1:9338", "192.168.77.1:9338", nil, false, false, nil, ""},
		{"another port", "192.168.77.1:9400", "0.0.0.0:9338", nil, false, false, []string{"endpoint_port"}, "192.168.77.1:9400 for this node, which listens on port 9338"},
		{"another port in IPv6", "[fd00:77::1]:9400", "[::]:9338", nil, false, false, []string{"endpoint_port"}, "port 9338"},
		{"an address that the host has not", "192.168.77.9:9338", "0.0.0.0:9338", nil, false, false, []string{"endpoint_address"}, "no interface of this host has that address"},
		{"a NAT's address and port", "203.0.113.1:9400", "0.0.0.0:9338", nil, false, false, []string{"endpoint_address"}, "unless a NAT"},
		{"the same, as the node registered", "203.0.113.1:9400", "0.0.0.0:9338", nil, false, true, nil, ""},
		{"addresses are not known", "192.168.77.9:9338", "0.0.0.0:9338", nil, true, false, nil, ""},
		{"another of the host's addresses", "192.168.77.1:9338", "192.168.78.1:9338", nil, false, false, []string{"endpoint_address"}, "listens on 192.168.78.1 alone"},
		{"IPv6 under an IPv4 socket", "[fd00:77::1]:9338", "0.0.0.0:9338", nil, false, false, []string{"endpoint_address"}, `write listen: "[::]:9338"`},
		{"an IPv6 peer under an IPv4 socket", "192.168.77.1:9338", "0.0.0.0:9338", []string{"192.168.77.2:9338", "[fd00:77::3]:9338"}, false, true, []string{"peer_family"}, "this node can't send to peer1: their endpoints are IPv6"},
		{"an IPv4 peer under an IPv6 socket", "[fd00:77::1]:9338", "[fd00:77::1]:9338", []string{"192.168.77.2:9338"}, false, false, []string{"peer_family"}, "endpoints are IPv4"},
		{"many of them", "192.168.77.1:9338", "0.0.0.0:9338", slices.Repeat([]string{"[fd00:77::3]:9338"}, 8), false, false, []string{"peer_family"}, "peer4 and 3 more"},
		{"both", "192.168.77.1:1", "0.0.0.0:9338", []string{"[fd00:77::3]:9338"}, false, false, []string{"endpoint_port", "peer_family"}, "port 9338"},
	} {
		plan := &Plan{Self: peer("node1", tt.self)}
		for i, endpoint := range tt.peers {
			plan.Peers = append(plan.Peers, peer(fmt.Sprintf("peer%d", i), endpoint))
		}
		facts := Facts{Listen: netip.MustParseAddrPort(tt.listen), Addresses: host, Registered: tt.registered}
		if tt.unknown {
			facts.Addresses = nil
		}
		got := warning.Sort(Warnings(plan, facts))
		var codes []string
		for _, w := range got {
			codes = append(codes, w.Code)
		}
		if !slices.Equal(codes, tt.codes) || len(got) > 0 && (!strings.Contains(got[0].Text, tt.part) || !strings.Contains(got[0].Text, "; ")) {
			t.Errorf("%s: %+v; want %v with %q", tt.name, got, tt.codes, tt.part)
		}
	}
}
