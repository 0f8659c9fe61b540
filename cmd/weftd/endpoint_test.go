package main_test

import (
	"testing"

	"weft/internal/testnet"
)

// A node that has more addresses than its endpoint's, which the kernel prefers: peers
// expect its datagrams from the endpoint.
func TestMoreAddressesThanTheEndpoint(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]testnet.ClusterOptions{
		"sealed over IPv6": {Nodes: 2, Sealed: true, Underlay6: true},
		"vxlan over IPv6":  {Nodes: 2, Underlay6: true},
		"vxlan over IPv4":  {Nodes: 2},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := newCluster(t, o)
			node1, node2 := cluster.Nodes()[0], cluster.Nodes()[1]
			if o.Underlay6 { // for which the kernel has no reason to take an earlier one
				run(t, node1.Namespace, "ip", "addr", "add", "fd00:77::100/128", "dev", testnet.UnderlayLink, "nodad")
			} else {
				run(t, node1.Namespace, "ip", "addr", "add", "192.168.77.100/24", "dev", testnet.UnderlayLink)
				run(t, node1.Namespace, "ip", "route", "change", "192.168.77.0/24", "dev", testnet.UnderlayLink, "src", "192.168.77.100")
			}
			if err := cluster.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			expectPings(t, addPod(t, node1, "a"), addPod(t, node2, "b"))
		})
	}
}

// An underlay that is a tunnel itself carries 1,280 bytes, as Tailscale's does.
func TestSmallUnderlayMTU(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]testnet.ClusterOptions{
		"sealed over IPv4": {Sealed: true},
		"sealed over IPv6": {Sealed: true, Underlay6: true},
		"vxlan over IPv4":  {},
	} {
		t.Run(name, func(t *testing.T) {
			o.Nodes, o.Wire.MTU = 2, 1280
			o.Configure = func(weft map[string]any) { weft["clusterCIDRs"] = []string{"10.244.0.0/16"} }
			cluster := newCluster(t, o)
			keepIPv4(t, cluster)
			if err := cluster.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			a, b := addPod(t, cluster.Nodes()[0], "a"), addPod(t, cluster.Nodes()[1], "b")
			transfer(t, a.Namespace, b.Namespace, addrOf(t, b, false), 4<<20)
			if got := report(t, cluster.Nodes()[0]); got.Drops["too_big"] != 0 || got.TUN.MTU >= 1280 {
				t.Errorf("with an MTU of %d, %d datagrams are too big", got.TUN.MTU, got.Drops["too_big"])
			}
		})
	}
}
