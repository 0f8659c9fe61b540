package scale

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"weft/control"
	"weft/internal/marks"
	"weft/peer"
)

// MostNodes is how many nodes can be simulated: Kubernetes supports half as many.
const MostNodes = 10_000

// MostCIDRs is how many CIDRs a node can have, and MostPrefixes how many all nodes can.
const (
	MostCIDRs    = 100
	MostPrefixes = 500_000
)

// clusterCIDRs are those of the real node, and those of the simulated ones.
var clusterCIDRs = []netip.Prefix{
	netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/32"),
	netip.MustParsePrefix("10.64.0.0/10"), netip.MustParsePrefix("fd00:300::/32"),
}

// simulated is a node that is listed and nothing else. How often it has moved decides its
// endpoint and its key. Half of its CIDRs are IPv4, half IPv6.
func simulated(number, moves, cidrs int) control.Node {
	hi, lo := byte(number>>8), byte(number)
	n := control.Node{
		Name:     fmt.Sprintf("sim%d", number),
		Endpoint: netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 16 + byte(moves%16), hi, lo}), 9338),
		Key:      peer.Fingerprint{1, hi, lo, byte(moves)},
	}
	// All that MostNodes need must fit the cluster CIDR.
	bits := 24
	if cidrs > 2 {
		bits = 28
	}
	for i := range cidrs / 2 {
		range6 := number*(cidrs/2) + i
		range4 := range6 << (32 - bits)
		n.PodCIDRs = append(n.PodCIDRs,
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64 + byte(range4>>16), byte(range4 >> 8), byte(range4)}), bits),
			netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0x03, 0, 0, byte(range6 >> 16), byte(range6 >> 8), byte(range6)}), 64))
	}
	return n
}

// event is the kernel's report about one of weft's routes.
type event struct {
	table int
	dst   netip.Prefix
	gone  bool
}

// endpointEvent is that of the route to a node's endpoint, which pods use.
func endpointEvent(n control.Node, gone bool) event {
	addr := n.Endpoint.Addr()
	return event{marks.RouteTable, netip.PrefixFrom(addr, addr.BitLen()), gone}
}

// peerEvents are those of all routes of a node that comes or goes.
func peerEvents(n control.Node, gone bool) []event {
	events := []event{endpointEvent(n, gone)}
	for _, p := range n.PodCIDRs {
		events = append(events, event{unix.RT_TABLE_MAIN, p, gone})
	}
	return events
}

// moveEvents are those of a node whose endpoint changes.
func moveEvents(before, after control.Node) []event {
	return []event{endpointEvent(after, false), endpointEvent(before, true)}
}
