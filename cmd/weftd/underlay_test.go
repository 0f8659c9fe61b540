package main_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

const marker = "this must not be read by anybody"

func TestNothingOfAPodCanBeReadOnTheUnderlay(t *testing.T) {
	t.Parallel()
	// Without offloads every datagram is seen by itself.
	cluster := newCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true, Wire: testnet.Wire{Offloads: testnet.Bare}})
	node1, node2 := cluster.Nodes()[0], cluster.Nodes()[1]
	if err := node1.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	pod1 := addPod(t, node1, "a")
	frames := record(t, node1.Namespace, testnet.UnderlayLink, func() {
		// Before the other node is there.
		early := socketAt(t, pod1.Namespace, 4000)
		for range 20 {
			if _, err := early.WriteToUDPAddrPort([]byte(marker), netip.MustParseAddrPort("10.244.2.2:5000")); err != nil {
				t.Fatal(err)
			}
		}
		if err := node2.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		pod2 := addPod(t, node2, "b")
		for family, v6 := range families {
			f := newFlow(t, pod1, pod2, v6)
			for size := range 100 {
				f.expectBurst(t, []byte(strings.Repeat(marker, 1+size%30)))
			}
			exchange := startExchange(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, v6))
			exchange.firstAfter(t, time.Now())
			if family == "IPv4" { // counters must not start again with the same key
				node1.Kill()
				if err := node1.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			exchange.firstAfter(t, time.Now())
			exchange.stop(t)
		}
	})

	headers, sealed, quic := map[string]bool{}, 0, 0
	for _, frame := range frames {
		if bytes.Contains(frame, []byte(marker[:8])) {
			t.Fatalf("what pods send can be read on the underlay: %x", frame)
		}
		payload, from, ok := testnet.Datagram(frame)
		switch {
		case testnet.IsNeighbourDiscovery(frame): // the underlay's own
		case binary.BigEndian.Uint16(frame[12:]) == unix.ETH_P_IP && frame[testnet.EthernetLen+9] == unix.IPPROTO_ICMP:
			// Before weftd listens, its kernel says so.
		case !ok:
			t.Fatalf("not UDP: %x", frame)
		case testnet.IsQUIC(payload):
			quic++
		case testnet.IsSealed(payload):
			sealed++
			// The card may have joined what arrives, and then only the first header is visible.
			if header := string(payload[:16]); from == node1.Entry().Endpoint.Addr() {
				if headers[header] {
					t.Fatalf("two datagrams have the header %x", header)
				}
				headers[header] = true
			}
		default:
			t.Fatalf("neither sealed nor QUIC: %x", payload)
		}
	}
	if sealed < 500 || quic < 10 || len(headers) < 500 {
		t.Errorf("only %d sealed datagrams (%d of them by node1) and %d of QUIC were seen", sealed, len(headers), quic)
	}
}
