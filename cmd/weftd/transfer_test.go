package main_test

import (
	"net/netip"
	"strings"
	"testing"

	"weft/internal/testnet"
	"weft/peer"
	"weft/router/tun"
)

// transferSize is enough for many batches and for the windows of TCP to open.
var transferSize = testnet.Sampled[int64](8<<20, 100<<20)

var families = map[string]bool{"IPv4": false, "IPv6": true}

func TestPodsTransferWithEachDriverBothWays(t *testing.T) {
	t.Parallel()
	for encapsulation, mtu := range map[string]int{"sealed": 1440, "vxlan": 1450} {
		for _, driver := range tun.Drivers() {
			t.Run(encapsulation+"/"+driver, func(t *testing.T) {
				cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: encapsulation == "sealed", Configure: withDriver(driver)})
				expectTransfers(t, cluster)
				got := report(t, cluster.Nodes()[0])
				if got.Encapsulation != encapsulation || got.TUN.MTU != mtu || got.TUN.Driver != driver || got.Outbound.Bytes < uint64(2*transferSize) {
					t.Errorf("%s with driver %s and MTU %d forwarded %d bytes; was it really in use?",
						got.Encapsulation, got.TUN.Driver, got.TUN.MTU, got.Outbound.Bytes)
				}
			})
		}
	}
}

// expectTransfers has pods on two nodes transfer both ways in both families.
func expectTransfers(t *testing.T, cluster *testnet.Cluster) {
	t.Helper()
	node1, node2 := cluster.Nodes()[0], cluster.Nodes()[1]
	pod1, pod2 := addPod(t, node1, "a"), addPod(t, node2, "b")
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			transfer(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, v6), transferSize)
			transfer(t, pod2.Namespace, pod1.Namespace, addrOf(t, pod1, v6), transferSize)
		})
	}
	expectNoChecksumErrors(t, node1.Namespace, node2.Namespace, pod1.Namespace, pod2.Namespace)
}

func TestPodsTransferOverAnIPv6Underlay(t *testing.T) {
	t.Parallel()
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Underlay6: true})
	pod1, pod2 := addPod(t, cluster.Nodes()[0], "a"), addPod(t, cluster.Nodes()[1], "b")
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			transfer(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, v6), transferSize/10)
		})
	}
	expectNoChecksumErrors(t, pod1.Namespace, pod2.Namespace)
	if got := report(t, cluster.Nodes()[0]).TUN.MTU; got != 1500-70 {
		t.Errorf("MTU = %d; VXLAN over IPv6 leaves 1430 of 1500", got)
	}
}

// kernelNode is a node without weft: the kernel's own VXLAN device, and one pod.
type kernelNode struct {
	*testnet.Namespace
	pod  *testnet.Namespace
	addr map[bool]netip.Addr // the pod's, by "is IPv6"
}

const kernelMAC, kernelEndpoint = "02:00:00:00:00:99", "192.168.77.99"

// addKernelNode joins a kernel VXLAN peer to a cluster of one weft node, as
// docs/operations/kernel-vxlan.md describes.
func addKernelNode(t *testing.T, network *testnet.Net, cluster *testnet.Cluster) kernelNode {
	t.Helper()
	ctx := t.Context()
	k := kernelNode{addr: map[bool]netip.Addr{false: netip.MustParseAddr("10.244.99.5"), true: netip.MustParseAddr("fd00:244:99::5")}}
	var err error
	if k.Namespace, err = network.AddNamespace(ctx, "kernel"); err != nil {
		t.Fatal(err)
	}
	if k.pod, err = network.AddNamespace(ctx, "kernel-pod"); err != nil {
		t.Fatal(err)
	}
	underlay := testnet.End{Namespace: k.Namespace, Link: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix(kernelEndpoint + "/24")}}
	if err := cluster.Segment.Attach(ctx, underlay); err != nil {
		t.Fatal(err)
	}
	err = testnet.Connect(ctx,
		testnet.End{Namespace: k.Namespace, Link: "pod", Addrs: prefixes("10.244.99.1/24", "fd00:244:99::1/64")},
		testnet.End{Namespace: k.pod, Link: "eth0", Addrs: prefixes("10.244.99.5/24", "fd00:244:99::5/64")},
		testnet.Wire{MTU: 1450})
	if err != nil {
		t.Fatal(err)
	}
	weft, weftMAC := cluster.Nodes()[0].Entry(), peer.DeriveMAC("node1").String()
	err = k.ExecAll(ctx,
		"sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
		"ip link add vxlan1 address "+kernelMAC+" mtu 1450 type vxlan id 1 dstport 9338 local "+kernelEndpoint+" nolearning",
		"ip link set vxlan1 up",
		"bridge fdb add "+weftMAC+" dev vxlan1 dst "+weft.Endpoint.Addr().String(),
		"ip neigh add 10.244.1.1 lladdr "+weftMAC+" dev vxlan1",
		"ip route add 10.244.1.0/24 via 10.244.1.1 dev vxlan1 onlink src 10.244.99.1",
		"ip neigh add fd00:244:1::1 lladdr "+weftMAC+" dev vxlan1",
		"ip route add fd00:244:1::/64 via fd00:244:1::1 dev vxlan1 onlink src fd00:244:99::1")
	if err != nil {
		t.Fatal(err)
	}
	run(t, k.pod, "ip", "route", "add", "default", "via", "10.244.99.1")
	run(t, k.pod, "ip", "route", "add", "default", "via", "fd00:244:99::1")
	return k
}

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func TestAKernelVXLANDeviceIsAPeerLikeAnyOther(t *testing.T) {
	t.Parallel()
	for _, driver := range tun.Drivers() {
		t.Run(driver, func(t *testing.T) {
			network := testnet.ForTest(t, testnet.Options{Prefix: "weftd", BinDir: binDir})
			cluster, err := network.NewCluster(t.Context(), testnet.ClusterOptions{
				Nodes: 1, Configure: withDriver(driver),
				// A card segments what the kernel's VXLAN device leaves to it; a veth that
				// says it could would hand over whole super-packets (docs/operations/kernel-vxlan.md).
				Wire: testnet.Wire{Offloads: testnet.NoTunnel},
			})
			if err != nil {
				t.Fatal(err)
			}
			node := cluster.Nodes()[0]
			k := addKernelNode(t, network, cluster)
			err = node.SetNodes([]testnet.NodeEntry{node.Entry(), {
				Name: "kernel", Endpoint: netip.MustParseAddrPort(kernelEndpoint + ":9338"), VTEPMAC: kernelMAC,
				PodCIDRs: prefixes("10.244.99.0/24", "fd00:244:99::/64"),
			}})
			if err != nil {
				t.Fatal(err)
			}
			if err := node.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			pod := addPod(t, node, "a")
			for family, v6 := range families {
				t.Run(family, func(t *testing.T) {
					run(t, pod.Namespace, "ping", "-c3", "-i0.1", "-W2", k.addr[v6].String())
					run(t, k.pod, "ping", "-c3", "-i0.1", "-W2", addrOf(t, pod, v6).String())
					transfer(t, pod.Namespace, k.pod, k.addr[v6], transferSize)
					transfer(t, k.pod, pod.Namespace, addrOf(t, pod, v6), transferSize)
				})
			}
			expectNoChecksumErrors(t, node.Namespace, pod.Namespace, k.Namespace, k.pod)
			expectValidChecksumsOnTheWire(t, pod.Namespace, node.Namespace, k, addrOf(t, pod, false), addrOf(t, pod, true))
		})
	}
}

// expectValidChecksumsOnTheWire captures in both pods with the checksum offload of
// their veths off, so that what is captured is what a real card would send.
func expectValidChecksumsOnTheWire(t *testing.T, pod, node *testnet.Namespace, k kernelNode, addrs ...netip.Addr) {
	t.Helper()
	for _, link := range []struct {
		at   *testnet.Namespace
		name string
	}{{pod, "eth0"}, {node, hostVeth(t, node)}, {k.pod, "eth0"}, {k.Namespace, "pod"}} {
		run(t, link.at, "ethtool", "-K", link.name, "tx", "off")
	}
	var atPeer [][]byte
	atPod := record(t, pod, "eth0", func() {
		atPeer = record(t, k.pod, "eth0", func() {
			for _, addr := range addrs {
				transfer(t, pod, k.pod, k.addr[addr.Is6()], 2<<20)
				transfer(t, k.pod, pod, addr, 2<<20)
			}
		})
	})
	for where, frames := range map[string][][]byte{"weft's pod": atPod, "the kernel's pod": atPeer} {
		if seen := checksums(t, frames, "tcp"); seen["Bad"] > 0 || seen["Good"] < 200 {
			t.Errorf("tshark sees TCP checksums at %s: %v", where, seen)
		}
	}
}

// hostVeth is the node's end of its only pod's link.
func hostVeth(t *testing.T, node *testnet.Namespace) string {
	t.Helper()
	link, _, _ := strings.Cut(run(t, node, "ip", "-br", "link", "show", "type", "veth", "group", "93"), "@")
	return link
}

// A path that quietly does without offloads passes every other test.
func TestSuperPacketsPassWholeFromPodToPod(t *testing.T) {
	t.Parallel()
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2})
	node1, node2 := cluster.Nodes()[0], cluster.Nodes()[1]
	pod1, pod2 := addPod(t, node1, "a"), addPod(t, node2, "b")
	transfer(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, false), transferSize)

	sent, received := report(t, node1).Outbound, report(t, node2).Inbound
	if sent.SuperPackets == 0 || sent.Packets/sent.SuperPackets < 20 {
		t.Errorf("node1 sent %d packets out of %d super-packets", sent.Packets, sent.SuperPackets)
	}
	if received.SuperPackets == 0 || received.Packets/received.SuperPackets < 20 {
		t.Errorf("node2 joined %d packets to %d super-packets", received.Packets, received.SuperPackets)
	}
	if gso := metric(t, node1, "weft_udp_gso"); gso != "1" {
		t.Error("node1 sends datagrams one by one")
	}
	if joined := number(t, metric(t, node2, "weft_udp_gro_datagrams_total")); joined < 0.9*float64(received.Packets) {
		t.Errorf("of %d datagrams, node2 read %v joined", received.Packets, joined)
	}
}
