package main_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"weft/internal/testnet"
)

// leakPort is the UDP port to which pods send all the time in TestNothingLeavesInClear. On the
// underlay nothing may have it: weft's own datagrams have weft's.
const leakPort = 7777

// watchUnderlay counts the frames that leave a node by its underlay link and are of a pod: by
// their addresses, or by their port where they were translated.
func watchUnderlay(t *testing.T, node *testnet.Node) (leaked func() string) {
	t.Helper()
	run(t, node.Namespace, "nft", fmt.Sprintf(`
		table netdev leaks {
			chain out {
				type filter hook egress device %q priority 0;
				ip saddr 10.244.0.0/16 counter comment "from a pod"
				ip daddr 10.244.0.0/16 counter comment "to a pod"
				ip6 saddr fd00:244::/32 counter comment "from a pod"
				ip6 daddr fd00:244::/32 counter comment "to a pod"
				udp dport %d counter comment "of a pod, translated"
			}
		}`, testnet.UnderlayLink, leakPort))
	return func() string {
		t.Helper()
		var lines []string
		for line := range strings.Lines(run(t, node.Namespace, "nft", "list", "chain", "netdev", "leaks", "out")) {
			if strings.Contains(line, "counter packets") && !strings.Contains(line, "counter packets 0 ") {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
		return strings.Join(lines, "\n")
	}
}

// load has a pod send to another node's pod and to that node itself, in both families, until the
// test ends. It returns what waits until some hundred more packets were sent.
func load(t *testing.T, from *testnet.Pod, to *testnet.Pod) (more func()) {
	t.Helper()
	socket, err := listenUDP(from.Namespace, netip.AddrPortFrom(netip.IPv6Unspecified(), 0)) // both families
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	var targets []netip.AddrPort
	for _, v6 := range families {
		targets = append(targets, netip.AddrPortFrom(addrOf(t, to, v6), leakPort))
	}
	targets = append(targets, netip.AddrPortFrom(to.Node.Entry().Endpoint.Addr(), leakPort))
	var sent atomic.Int64
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				_, _ = socket.WriteToUDPAddrPort([]byte(marker), targets[i%len(targets)]) // refused: no way, which is right
				sent.Add(1)
			}
		}
	}()
	return func() {
		t.Helper()
		until := sent.Load() + 300
		eventually(t, "packets to be sent", func() error {
			if n := sent.Load(); n < until {
				return fmt.Errorf("%d of %d", n, until)
			}
			return nil
		})
	}
}

// TestNothingLeavesInClear: at no moment of weftd's life does a frame of a pod leave its node but
// in weft's datagrams.
func TestNothingLeavesInClear(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node := cluster.Nodes()[0]
	expectPings(t, pod1, pod2)
	leaked := watchUnderlay(t, node)
	more := load(t, pod1, pod2)
	start := func() {
		t.Helper()
		if err := node.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(moment string) {
		t.Helper()
		more()
		if frames := leaked(); frames != "" {
			t.Fatalf("%s: pods' frames left on the underlay:\n%s", moment, frames)
		}
	}
	expect("while weftd runs")
	for range testnet.Sampled(2, 20) {
		if err := node.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		expect("after a stop")
		start()
		expect("after a restart")
		node.Kill()
		expect("after a kill -9")
		start()
		expect("after a kill -9 and a start")
	}
	run(t, node.Namespace, "ip", "link", "del", testnet.TUNName)
	eventually(t, "weftd to end", func() error {
		if node.Crashed() == nil {
			return errors.New("it runs")
		}
		return nil
	})
	node.Kill() // it has ended
	expect("after weft0 was deleted")
	for _, broken := range []string{"--listen=nowhere", "--node=node9", "--key-file=/nowhere/node.key"} {
		if got := finish(t, weftd(t, node, nil, broken)); got.status != 2 {
			t.Errorf("%s: exit status %d, %s", broken, got.status, got.stderr)
		}
		expect("after status 2")
	}
	start()
	expect("after the configuration was corrected")

	// A first start on a node that has pods: as soon as weftd has looked at its list of nodes,
	// good or not, it is protected.
	if err := node.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	run(t, node.Namespace, "sh", "-c", "nft delete table inet weft; ip -4 route flush table all proto 93; ip -6 route flush table all proto 93")
	more()
	if leaked() == "" {
		t.Fatal("without any protection nothing leaves either: this test could not fail")
	}
	if got := finish(t, weftd(t, node, nil, "--node=node9")); got.status != 2 {
		t.Errorf("a node that is in no list: exit status %d, %s", got.status, got.stderr)
	}
	run(t, node.Namespace, "nft", "delete", "table", "netdev", "leaks")
	leaked = watchUnderlay(t, node)
	expect("after a first start that failed")
	start()
	expect("after a first start")
}
