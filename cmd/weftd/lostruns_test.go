package main_test

import (
	"errors"
	"fmt"
	"testing"

	"weft/internal/testnet"
)

// The kernel and the card of a node may lose datagrams that are sent in runs, without an error.
func TestRunsThatGetLostAreTurnedOff(t *testing.T) {
	t.Parallel()
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			t.Parallel()
			cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true, Underlay6: v6})
			pod1, pod2 := addPod(t, cluster.Nodes()[0], "a"), addPod(t, cluster.Nodes()[1], "b")
			transfer(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, v6), 1<<20)
			ip := map[bool]string{false: "ip", true: "ip6"}[v6]
			run(t, cluster.Segment.Namespace, "nft", fmt.Sprintf(`
				table bridge runs {
					chain c {
						type filter hook prerouting priority 0
						%s saddr %s udp dport 9338 meta length > 1600 drop
					}
				}`, ip, cluster.Nodes()[0].Entry().Endpoint.Addr()))
			eventually(t, "the warning is there", func() error {
				transfer(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, v6), 128<<10) // stalls at first
				for _, w := range report(t, cluster.Nodes()[0]).Warnings {
					if w.Code == "udp_gso_lost" {
						return nil
					}
				}
				return errors.New("no warning")
			})
			transfer(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, v6), testnet.Sampled[int64](16<<20, 64<<20))
			if got := metric(t, cluster.Nodes()[0], `weft_warnings{code="udp_gso_lost"}`); got != "1" {
				t.Errorf("the metric says %q", got)
			}
			for _, w := range report(t, cluster.Nodes()[1]).Warnings {
				t.Errorf("the other node, whose runs arrive, warns: %v", w)
			}
		})
	}
}
