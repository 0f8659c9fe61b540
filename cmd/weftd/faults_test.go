package main_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"weft/internal/testnet"
)

// expectWholeTransfers sends size bytes per family from one pod to the other, and
// fails if they arrive otherwise than as they were sent, if a kernel saw a wrong
// checksum, or if super-packets had no part in it.
func expectWholeTransfers(t *testing.T, from, to *testnet.Pod, size int64) {
	t.Helper()
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			transfer(t, from.Namespace, to.Namespace, addrOf(t, to, v6), size)
		})
	}
	expectNoChecksumErrors(t, from.Namespace, to.Namespace, from.Node.Namespace, to.Node.Namespace)
	sent, received := report(t, from.Node).Outbound, report(t, to.Node).Inbound
	// Few, because a sender that takes loss for congestion keeps its window small.
	const few = 2
	if sent.SuperPackets == 0 || sent.Packets < few*sent.SuperPackets {
		t.Errorf("%d packets were sent out of %d super-packets", sent.Packets, sent.SuperPackets)
	}
	if received.SuperPackets == 0 || received.Packets < few*received.SuperPackets {
		t.Errorf("%d packets were joined to %d super-packets", received.Packets, received.SuperPackets)
	}
}

// A lost datagram is a hole in a run; weftd must not join packets across it.
func TestTransfersSurviveLostDatagrams(t *testing.T) {
	t.Parallel()
	// The kernel cuts runs before they leave the node, and joins what is left of them
	// where they arrive: so the segment loses single datagrams, and not whole runs.
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Wire: testnet.Wire{Offloads: testnet.Bare}})
	pod1, pod2 := addPod(t, cluster.Nodes()[0], "a"), addPod(t, cluster.Nodes()[1], "b")
	run(t, cluster.Segment.Namespace, "nft", `
		table bridge loss {
			counter lost {}
			chain c {
				type filter hook prerouting priority 0
				udp dport 9338 numgen random mod 100 == 0 counter name lost drop
			}
		}`)
	expectWholeTransfers(t, pod1, pod2, testnet.Sampled[int64](32<<20, 512<<20))
	lost := 0.0
	if _, after, ok := strings.Cut(run(t, cluster.Segment.Namespace, "nft", "list", "counter", "bridge", "loss", "lost"), "packets "); ok {
		lost = number(t, after)
	}
	if sent := report(t, pod1.Node).Outbound.Packets; lost < 0.008*float64(sent) {
		t.Errorf("of %d datagrams only %v were lost", sent, lost)
	}
}

// A late or duplicate datagram lies in the middle of a run, where its neighbours look as
// if they could be joined.
func TestTransfersSurviveLateAndDuplicate(t *testing.T) {
	t.Parallel()
	network := testnet.ForTest(t, testnet.Options{Prefix: "weftd", BinDir: binDir})
	cluster, err := network.NewCluster(t.Context(), testnet.ClusterOptions{Nodes: 2})
	if err != nil {
		t.Fatal(err)
	}
	relays := startRelays(t, network, cluster)
	if err := cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	pod1, pod2 := addPod(t, cluster.Nodes()[0], "a"), addPod(t, cluster.Nodes()[1], "b")
	expectWholeTransfers(t, pod1, pod2, testnet.Sampled[int64](32<<20, 256<<20))
	for _, r := range relays {
		if r.late.Load() < 100 || r.twice.Load() < 100 {
			t.Errorf("on the way to %s only %d datagrams came late, and %d twice", r.to, r.late.Load(), r.twice.Load())
		}
	}
}

// TestALinkThatFlapsIsUsedAsSoonAsItIsBack: after a second, and after so long that the peer
// counts as unreachable. The keys that are there are good as before.
func TestALinkThatFlapsIsUsedAsSoonAsItIsBack(t *testing.T) {
	t.Parallel()
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true})
	node1, node2 := cluster.Nodes()[0], cluster.Nodes()[1]
	pod1, pod2 := addPod(t, node1, "pod1"), addPod(t, node2, "pod2")
	expectPings(t, pod1, pod2)
	for _, outage := range []time.Duration{time.Second, 12 * time.Second} {
		run(t, node2.Namespace, "ip", "link", "set", testnet.UnderlayLink, "down")
		ends := time.Now().Add(outage)
		for time.Now().Before(ends) { // pods go on trying
			if err := pings(t, pod1.Namespace, addrOf(t, pod2, false)); err == nil {
				t.Fatal("the link is not down")
			}
		}
		if outage > 10*time.Second {
			eventually(t, "node2 to be unreachable", func() error {
				_ = pings(t, pod1.Namespace, addrOf(t, pod2, false))
				if state := report(t, node1).Peers[0].State; state != "unreachable" {
					return errors.New(state)
				}
				return nil
			})
		}
		run(t, node2.Namespace, "ip", "link", "set", testnet.UnderlayLink, "up")
		up := time.Now()
		for _, v6 := range families {
			eventually(t, "the pods to reach each other", func() error {
				_, err := pod1.Exec(t.Context(), "ping", "-n", "-c1", "-W0.1", addrOf(t, pod2, v6).String())
				return err
			})
		}
		t.Logf("after %v it was used again within %v", outage, time.Since(up).Round(time.Millisecond))
	}
}
