package main_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"weft/internal/testnet"
)

// Metrics of each peer show the same with both encapsulations.
func TestPeerMetrics(t *testing.T) {
	t.Parallel()
	for name, sealed := range map[string]bool{"sealed": true, "vxlan": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: sealed})
			node, other := cluster.Nodes()[0], cluster.Nodes()[1]
			pod1, pod2 := addPod(t, node, "a"), addPod(t, other, "b")
			untouched := map[bool]string{true: "no_keys", false: "unknown"}[sealed]
			awaitMetrics(t, node, `weft_peer_states{state="`+untouched+`"} 1`, `weft_peer_state{peer="node2",state="`+untouched+`"} 1`)

			sendOn(t, pod1, addrOf(t, pod2, false))
			awaitMetrics(t, node, `weft_peer_states{state="up"} 1`, `weft_peer_state{peer="node2",state="up"} 1`,
				`weft_peer_probe_loss_ratio{peer="node2"} 0`, `weft_peer_path_mtu_bytes{peer="node2"} `+metric(t, node, "weft_tun_mtu_bytes"), "weft_peers_path_mtu_reduced 0")
			eventually(t, "the round-trip time to be known", func() error {
				all, err := node.Metrics(t.Context())
				if err == nil && (all[`weft_peer_rtt_seconds{peer="node2"}`] == "" || all[`weft_peer_last_seen_timestamp_seconds{peer="node2"}`] == "") {
					err = fmt.Errorf("metrics: %v", all)
				}
				return err
			})
			for _, direction := range []string{"inbound", "outbound"} {
				for _, name := range []string{"weft_peer_packets_total", "weft_peer_bytes_total"} {
					if n := number(t, metric(t, node, fmt.Sprintf("%s{direction=%q,peer=\"node2\"}", name, direction))); n == 0 {
						t.Errorf("%s, %s: nothing", name, direction)
					}
				}
			}

			other.Kill()
			awaitMetrics(t, node, `weft_peer_states{state="unreachable"} 1`, `weft_peer_state{peer="node2",state="unreachable"} 1`, `weft_peer_states{state="up"} 0`)
		})
	}
}

// awaitMetrics waits until a node's metrics have all of these lines.
func awaitMetrics(t *testing.T, node *testnet.Node, want ...string) {
	t.Helper()
	eventually(t, "metrics", func() error {
		text, err := node.Get(t.Context(), "/metrics")
		if err != nil {
			return err
		}
		lines := strings.Split(text, "\n")
		for _, line := range want {
			if !slices.Contains(lines, line) {
				return fmt.Errorf("there is no %s in\n%s", line, strings.Join(slices.DeleteFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "weft_peer") }), "\n"))
			}
		}
		return nil
	})
}

// Where there are more peers than the configuration wants series for, they are counted by state.
func TestTooManyPeersHaveNoMetricsEach(t *testing.T) {
	t.Parallel()
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 3, Configure: func(weft map[string]any) { weft["metrics"].(map[string]any)["peers"] = 1 }})
	text, err := cluster.Nodes()[0].Get(t.Context(), "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(text, "peer=") || !strings.Contains(text, "\nweft_peers 2\n") || !strings.Contains(text, "weft_peer_states{state=\"unknown\"} 2\n") {
		t.Errorf("metrics:\n%s", text)
	}
}
