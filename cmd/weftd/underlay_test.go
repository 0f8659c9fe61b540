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

// udpPayload returns the payload of a UDP datagram over IPv4 in an Ethernet frame, and
// who sent it.
func udpPayload(frame []byte) (payload []byte, from string, ok bool) {
	const ethernet, udp = 14, 8
	if len(frame) < ethernet+20 || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP || frame[ethernet+9] != unix.IPPROTO_UDP {
		return nil, "", false
	}
	ip := frame[ethernet:]
	header := int(ip[0]&0x0f) * 4
	ip = ip[:min(len(ip), int(binary.BigEndian.Uint16(ip[2:])))] // Ethernet pads short frames
	if len(ip) < header+udp {
		return nil, "", false
	}
	return ip[header+udp:], netip.AddrFrom4([4]byte(ip[12:16])).String(), true
}

func isSealed(payload []byte) bool {
	const header, tag, ip = 16, 16, 20
	return len(payload) >= header+tag+ip && bytes.Equal(payload[:4], []byte{1, 0, 0, 0})
}

func isQUIC(payload []byte) bool { return len(payload) > 20 && payload[0] >= 0x40 }

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
		etherType := binary.BigEndian.Uint16(frame[12:])
		payload, from, ok := udpPayload(frame)
		switch {
		case etherType == unix.ETH_P_ARP, etherType == unix.ETH_P_IPV6 && (frame[14+6] == unix.IPPROTO_ICMPV6 || frame[0] == 0x33):
			// The underlay's own: neighbour discovery.
		case etherType == unix.ETH_P_IP && frame[14+9] == unix.IPPROTO_ICMP:
			// Before weftd listens, its kernel says so.
		case !ok:
			t.Fatalf("not UDP: %x", frame)
		case isQUIC(payload):
			quic++
		case isSealed(payload):
			sealed++
			// What arrives may have been joined by the card, and only its first header is seen.
			if header := string(payload[:16]); from == node1.Entry().Endpoint.Addr().String() {
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
