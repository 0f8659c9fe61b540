package main_test

import (
	"fmt"
	"strings"
	"testing"
)

// withTOS sends a datagram with a TOS and returns the TOS that it arrives with, or
// false if one that is sent after it, and that no congestion hinders, arrives first.
func (f flow) withTOS(t *testing.T, tos int) (arrived int, ok bool) {
	t.Helper()
	f.setClass(t, tos)
	f.send(t, []byte("?"), 0)
	f.setClass(t, capable1)
	f.send(t, []byte("."), 0)
	for {
		payload, class, err := f.receive(t)
		if err != nil {
			t.Fatal(err)
		}
		if string(payload) == "." {
			return arrived, ok
		}
		arrived, ok = class, true
	}
}

// The ECN field of the TOS (RFC 3168, section 5).
const capable0, capable1, congestion = 2, 1, 3

func TestUnderlayCongestionReachesPods(t *testing.T) {
	t.Parallel()
	cluster, a, b := podsOnTwoNodes(t)
	f := newFlow(t, a, b, false)
	f.learnClasses(t)
	const expedited = 46 << 2
	for _, tos := range []int{0, capable0, capable1, congestion, expedited | capable0} {
		if got, ok := f.withTOS(t, tos); !ok || got != tos {
			t.Errorf("without congestion TOS %#x arrives as %#x, %v", tos, got, ok)
		}
	}

	// The outer header shows what is inside, and a router in between marks it.
	node := cluster.Nodes()[1]
	run(t, node.Namespace, "nft", `
		table ip underlay {
			counter expedited {}
			chain c {
				type filter hook prerouting priority -500
				udp dport 9338 ip dscp ef ip ecn ect0 counter name expedited
				udp dport 9338 ip ecn set ce
			}
		}`)
	for _, c := range []struct{ tos, want int }{
		{capable0, congestion}, {capable1, congestion}, {congestion, congestion},
		{expedited | capable0, expedited | congestion},
	} {
		if got, ok := f.withTOS(t, c.tos); !ok || got != c.want {
			t.Errorf("with congestion TOS %#x arrives as %#x, %v; want %#x", c.tos, got, ok, c.want)
		}
	}
	if got, ok := f.withTOS(t, 0); ok {
		t.Errorf("a packet whose flow does not understand congestion arrives all the same, with TOS %#x", got)
	}
	eventually(t, "the packet to be counted as dropped for congestion", func() error {
		if dropped := metric(t, node, `weft_drops_total{reason="congestion"}`); dropped != "1" {
			return fmt.Errorf("%s packets are", dropped)
		}
		return nil
	})
	if out := run(t, node.Namespace, "nft", "list", "counter", "ip", "underlay", "expedited"); !strings.Contains(out, "packets 1 ") {
		t.Errorf("the outer header does not show DSCP and ECN: %s", out)
	}
}
