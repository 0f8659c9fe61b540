package e2e

import (
	"fmt"
	"net/netip"
	"testing"

	"weft/internal/testnet"
)

// underlay are the addresses that a node of the cluster has on the segment, IPv4 first.
func underlay(number int) []netip.Addr {
	return []netip.Addr{
		netip.MustParseAddr(fmt.Sprintf("192.168.77.%d", number)), netip.MustParseAddr(fmt.Sprintf("fd00:77::%d", number)),
	}
}

func TestAHostPortLeadsToThePodFromEverywhere(t *testing.T) {
	begin(t)
	pod := run(t, node1, withEverything(node1.sandbox("pod")))
	itself := pod.startServer(t)
	neighbour, remote := run(t, node1, node1.sandbox("neighbour")), run(t, node2, node2.sandbox("remote"))
	near, far := neighbour.start(t, "client", "sleep", "86400"), remote.start(t, "client", "sleep", "86400")
	outside := []netip.Addr{testnet.OutsideUnderlay4, testnet.OutsideUnderlay6}
	// The nodes' endpoints are their IPv4 addresses: only those are reached through the
	// overlay.
	through := []netip.Addr{remote.addrs[0], underlay(2)[1]}

	for family, node := range underlay(1) {
		at := netip.AddrPortFrom(node, hostPort)
		expectAnswer(t, "from outside", outsider{cluster.Outside}, at, answer{"pod", outside[family]})
		expectAnswer(t, "from the other node", outsider{node2.Namespace}, at, answer{"pod", underlay(2)[family]})
		expectAnswer(t, "from a pod of the same node", near, at, answer{"pod", neighbour.addrs[family]})
		expectAnswer(t, "from a pod of another node", far, at, answer{"pod", through[family]})
		if got, err := itself.ask(t.Context(), at); err != nil || got.server != "pod" {
			t.Errorf("from the pod itself, at %s: %v, %v", at, got, err)
		}
		if got, err := (outsider{node1.Namespace}).ask(t.Context(), at); err != nil || got.server != "pod" {
			t.Errorf("from the node itself, at %s: %v, %v", at, got, err)
		}
	}
	// There is no such thing with IPv6: the kernel does not route from ::1.
	local := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), hostPort)
	if got, err := (outsider{node1.Namespace}).ask(t.Context(), local); err != nil || got.server != "pod" {
		t.Errorf("from the node itself, at %s: %v, %v", local, got, err)
	}
}
