package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"weft/encap/vxlan/vxlantest"
	"weft/internal/testnet"
	"weft/packet/packettest"
	"weft/peer"
)

// socketAt opens a UDP socket in a namespace.
func socketAt(t *testing.T, at *testnet.Namespace, port int) *net.UDPConn {
	t.Helper()
	conn, err := listenUDP(at, netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// datagram is what node2 would send to node1 for a pod's packet.
func datagram(from, to string) []byte {
	inner := packettest.UDP(netip.MustParseAddr(from), netip.MustParseAddr(to), 64)
	return vxlantest.Datagram(inner, &peer.Peer{VTEPMAC: peer.DeriveMAC("node2")}, &peer.Peer{VTEPMAC: peer.DeriveMAC("node1")})
}

// weftd drops them, and counts each under its reason.
func TestHostileDatagramsGetNoAnswer(t *testing.T) {
	t.Parallel()
	network := testnet.ForTest(t, testnet.Options{Prefix: "weftd", BinDir: binDir})
	cluster, err := network.NewCluster(t.Context(), testnet.ClusterOptions{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	node := cluster.Nodes()[0]
	peer2, err := network.AddNamespace(t.Context(), "peer2") // a compromised peer
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.Segment.Attach(t.Context(), testnet.End{Namespace: peer2, Link: "eth0", Addrs: prefixes("192.168.77.2/24")}); err != nil {
		t.Fatal(err)
	}
	err = node.SetNodes([]testnet.NodeEntry{node.Entry(),
		{Name: "node2", Endpoint: netip.MustParseAddrPort("192.168.77.2:9338"), PodCIDRs: prefixes("10.244.2.0/24")},
		{Name: "node3", Endpoint: netip.MustParseAddrPort("192.168.77.3:9338"), PodCIDRs: prefixes("10.244.3.0/24")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	pod := addPod(t, node, "a")
	victim := socketAt(t, pod.Namespace, 5000) // packettest's packets go there
	podAddr := addrOf(t, pod, false).String()
	peer, stranger := socketAt(t, peer2, 9338), socketAt(t, cluster.Outside, 9338)

	// The way is open: what is dropped below is dropped for its own fault.
	send(t, peer, datagram("10.244.2.5", podAddr))
	_ = victim.SetReadDeadline(time.Now().Add(testnet.WaitLimit))
	if n, err := victim.Read(make([]byte, 1500)); n != 64 || err != nil {
		t.Fatalf("a proper datagram does not arrive: %d bytes, %v", n, err)
	}

	good := datagram("10.244.2.5", podAddr)
	edit := func(at int, value byte) []byte {
		b := bytes.Clone(good)
		b[at] = value
		return b
	}
	sentBefore, icmpBefore := snmp(t, node.Namespace)["Udp.OutDatagrams"], snmp(t, node.Namespace)["Icmp.OutMsgs"]
	for _, tc := range []struct {
		name    string
		from    *net.UDPConn
		payload []byte
		reason  string
	}{
		{"a non-peer's datagram", stranger, good, "unknown_peer"},
		{"a non-peer's garbage", stranger, bytes.Repeat([]byte{0xff}, 1400), "unknown_peer"},
		{"garbage", peer, bytes.Repeat([]byte{0x5a}, 1400), "bad_header"},
		{"an empty datagram", peer, nil, "truncated"},
		{"headers cut short", peer, good[:21], "truncated"},
		{"a packet cut short", peer, good[:len(good)-1], "malformed"},
		{"no packet behind the headers", peer, good[:22], "malformed"},
		{"another network", peer, edit(4, 7), "wrong_vni"},
		{"another VTEP", peer, edit(13, good[13]+1), "wrong_mac"},
		{"no IP", peer, edit(21, 0x06), "not_ip"},
		{"another peer's source", peer, datagram("10.244.3.5", podAddr), "source_not_peer"},
		{"a source of the node's own", peer, datagram("10.244.1.9", podAddr), "source_not_peer"},
		{"a source outside the cluster", peer, datagram("198.51.100.1", podAddr), "source_not_peer"},
		{"a destination of another node", peer, datagram("10.244.2.5", "10.244.3.5"), "destination_not_local"},
		{"a destination outside the cluster", peer, datagram("10.244.2.5", "198.51.100.1"), "destination_not_local"},
		{"a loopback destination", peer, datagram("10.244.2.5", "127.0.0.1"), "destination_not_local"},
		{"a multicast destination", peer, datagram("10.244.2.5", "224.0.0.1"), "destination_not_local"},
	} {
		expectDropped(t, node, tc.name, tc.reason, func() { send(t, tc.from, tc.payload) })
	}

	for _, silent := range []*net.UDPConn{peer, stranger, victim} {
		_ = silent.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := silent.Read(make([]byte, 1500)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s received %d bytes, %v", silent.LocalAddr(), n, err)
		}
	}
	after := snmp(t, node.Namespace)
	if after["Udp.OutDatagrams"] != sentBefore || after["Icmp.OutMsgs"] != icmpBefore {
		t.Errorf("the node answered: it sent %s UDP datagrams before and %s after, %s ICMP messages before and %s after",
			sentBefore, after["Udp.OutDatagrams"], icmpBefore, after["Icmp.OutMsgs"])
	}
}

// expectDropped fails unless f has node1 count one packet more under a reason.
func expectDropped(t *testing.T, node *testnet.Node, what, reason string, f func()) {
	t.Helper()
	name := fmt.Sprintf("weft_drops_total{reason=%q}", reason)
	before := number(t, metric(t, node, name))
	f()
	eventually(t, what+" is counted as "+reason, func() error {
		if now := number(t, metric(t, node, name)); now != before+1 {
			return fmt.Errorf("the count went from %v to %v", before, now)
		}
		return nil
	})
}

// send sends a datagram to node1.
func send(t *testing.T, from *net.UDPConn, payload []byte) {
	t.Helper()
	if _, err := from.WriteTo(payload, &net.UDPAddr{IP: net.IP{192, 168, 77, 1}, Port: 9338}); err != nil {
		t.Fatal(err)
	}
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	var n float64
	if _, err := fmt.Sscan(text, &n); err != nil {
		t.Fatalf("%q is no number: %v", text, err)
	}
	return n
}
