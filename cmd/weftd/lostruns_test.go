package main_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"weft/internal/testnet"
	"weft/internal/warning"
)

// The kernel and the card of a node may lose datagrams that are sent in runs, without an error. With
// sealed the handshake compares what arrives, and with vxlan probes do.
func TestRunsThatGetLostAreTurnedOff(t *testing.T) {
	t.Parallel()
	for _, sealed := range []bool{true, false} {
		for family, v6 := range families {
			t.Run(map[bool]string{true: "sealed/", false: "vxlan/"}[sealed]+family, func(t *testing.T) {
				t.Parallel()
				expectRunsTurnedOff(t, startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: sealed, Underlay6: v6}), v6)
			})
		}
	}
}

// expectRunsTurnedOff has the underlay lose what a node sends in runs.
func expectRunsTurnedOff(t *testing.T, cluster *testnet.Cluster, v6 bool) {
	node, other := cluster.Nodes()[0], cluster.Nodes()[1]
	pod1, pod2 := addPod(t, node, "a"), addPod(t, other, "b")
	transfer(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, v6), 1<<20)
	ip := map[bool]string{false: "ip", true: "ip6"}[v6]
	warned := func() bool {
		return slices.ContainsFunc(report(t, node).Warnings, func(w warning.Warning) bool { return w.Code == "udp_gso_lost" })
	}
	if warned() {
		t.Error("there is a warning before runs get lost")
	}
	run(t, cluster.Segment.Namespace, "nft", fmt.Sprintf(`
		table bridge runs {
			chain c {
				type filter hook prerouting priority 0
				%s saddr %s udp dport 9338 meta length > 1600 drop
			}
		}`, ip, node.Entry().Endpoint.Addr()))
	eventually(t, "the warning is there", func() error {
		transfer(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, v6), 128<<10) // stalls at first
		if !warned() {
			return errors.New("no warning")
		}
		return nil
	})
	transfer(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, v6), testnet.Sampled[int64](16<<20, 64<<20))
	if got := metric(t, node, `weft_warnings{code="udp_gso_lost"}`); got != "1" {
		t.Errorf("the metric says %q", got)
	}
	if shown := weft(t, node, "events").stdout; !strings.Contains(shown, "datagrams in runs lost, runs disabled") {
		t.Errorf("weft events:\n%s", shown)
	}
	for _, w := range report(t, other).Warnings {
		t.Errorf("the other node, whose runs arrive, warns: %v", w)
	}
	// The next weftd sends none from the start.
	if err := node.TakeOver(t.Context(), "--takeover"); err != nil {
		t.Fatal(err)
	}
	if !warned() {
		t.Error("the warning is gone after a hand-over")
	}
}
