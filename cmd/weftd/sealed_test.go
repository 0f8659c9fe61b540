package main_test

import (
	"testing"

	"weft/internal/testnet"
	"weft/router/tun"
)

func TestPodsTransferSealedWithEachDriverBothWays(t *testing.T) {
	for _, driver := range tun.Drivers() {
		t.Run(driver, func(t *testing.T) {
			cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true, Configure: withDriver(driver)})
			node1, node2 := cluster.Nodes()[0], cluster.Nodes()[1]
			pod1, pod2 := addPod(t, node1, "a"), addPod(t, node2, "b")
			for family, v6 := range families {
				t.Run(family, func(t *testing.T) {
					transfer(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, v6), transferSize)
					transfer(t, pod2.Namespace, pod1.Namespace, addrOf(t, pod1, v6), transferSize)
				})
			}
			expectNoChecksumErrors(t, node1.Namespace, node2.Namespace, pod1.Namespace, pod2.Namespace)
			if got := report(t, node1); got.Encapsulation != "sealed" || got.TUN.MTU != 1440 || got.Outbound.Bytes < 2*transferSize {
				t.Errorf("encapsulation %s with MTU %d forwarded %d bytes", got.Encapsulation, got.TUN.MTU, got.Outbound.Bytes)
			}
		})
	}
}
