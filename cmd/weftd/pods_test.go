package main_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

// reaches returns nil if a connection is made with no packet sent twice.
func reaches(t *testing.T, from, to *testnet.Namespace, addr netip.Addr) error {
	t.Helper()
	listener, err := to.Listen(t.Context(), "tcp", net.JoinHostPort(addr.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	// A try among many ends before the wait for one that succeeds.
	ctx, cancel := context.WithTimeout(t.Context(), testnet.WaitLimit/8)
	defer cancel()
	return dialOnce(ctx, from, listener.Addr().String())
}

// dialOnce makes a TCP connection and closes it. Whatever had to be sent again is an error.
func dialOnce(ctx context.Context, from *testnet.Namespace, to string) error {
	conn, err := from.Dial(ctx, "tcp", to)
	if err != nil {
		return err
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	var info *unix.TCPInfo
	if controlErr := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); controlErr != nil {
		return controlErr
	}
	if err == nil && info.Total_retrans > 0 {
		err = fmt.Errorf("the connection to %s took %d retransmissions", to, info.Total_retrans)
	}
	return err
}

// reachesAll returns what of a pod's whole world it does not reach, or is not reached by.
func reachesAll(t *testing.T, cluster *testnet.Cluster, pod *testnet.Pod, others ...*testnet.Pod) error {
	t.Helper()
	var errs []error
	try := func(from, to *testnet.Namespace, addr netip.Addr) {
		t.Helper()
		errs = append(errs, reaches(t, from, to, addr))
	}
	for _, v6 := range families {
		addr := addrOf(t, pod, v6)
		for _, other := range others {
			try(pod.Namespace, other.Namespace, addrOf(t, other, v6))
			try(other.Namespace, pod.Namespace, addr)
		}
		for _, node := range cluster.Nodes() {
			underlay, overlay := addressesOf(t, node, v6)
			try(pod.Namespace, node.Namespace, underlay)
			try(pod.Namespace, node.Namespace, overlay)
			try(node.Namespace, pod.Namespace, addr)
		}
		outside := testnet.OutsideAddr4
		if v6 {
			outside = testnet.OutsideAddr6
		}
		try(pod.Namespace, cluster.Outside, outside)
		try(pod.Namespace, pod.Namespace, addr)
	}
	return errors.Join(errs...)
}

// addressesOf returns a node's own addresses of a family.
func addressesOf(t *testing.T, node *testnet.Node, v6 bool) (underlay, overlay netip.Addr) {
	t.Helper()
	for _, cidr := range node.Entry().PodCIDRs {
		if cidr.Addr().Is6() == v6 {
			overlay = cidr.Addr().Next()
		}
	}
	family := "-4"
	if v6 {
		family = "-6"
	}
	fields := strings.Fields(run(t, node.Namespace, "ip", "-br", family, "addr", "show", "dev", testnet.UnderlayLink, "scope", "global"))
	return netip.MustParsePrefix(fields[2]).Addr(), overlay
}

// hostileDefaults are what a distribution or an administrator may set, beside what weftd
// sets itself, and what interfaces to come have from then on.
func hostileDefaults(rpFilter int) string {
	var settings []string
	for _, which := range []string{"all", "default"} {
		settings = append(settings, fmt.Sprintf("net.ipv4.conf.%s.rp_filter=%d", which, rpFilter))
		for _, s := range []string{"arp_ignore=2", "arp_announce=2", "arp_filter=1", "arp_accept=1", "proxy_arp=0",
			"send_redirects=1", "accept_redirects=1", "secure_redirects=0", "accept_source_route=1", "log_martians=1"} {
			settings = append(settings, "net.ipv4.conf."+which+"."+s)
		}
		for _, s := range []string{"accept_ra=2", "autoconf=1", "accept_dad=1", "dad_transmits=5", "accept_redirects=1",
			"use_tempaddr=2", "addr_gen_mode=0"} {
			settings = append(settings, "net.ipv6.conf."+which+"."+s)
		}
	}
	settings = append(settings, "net.ipv4.conf.default.forwarding=0", "net.ipv6.conf.default.forwarding=0",
		"net.ipv6.conf.default.disable_ipv6=1")
	return "sysctl -qw " + strings.Join(settings, " ")
}

// Distributions set these defaults for interfaces that are created later.
func TestPodsWorkWithAnySysctlDefaults(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		before   string
		rpFilter int
	}{
		"on a node that routes nothing, strictly": {"net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0", 1},
		"on a node that routes already, loosely":  {"net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := newCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true})
			hostile := fmt.Sprintf("sysctl -qw %s net.ipv4.conf.eth0.rp_filter=%d\n%s", tc.before, tc.rpFilter, hostileDefaults(tc.rpFilter))
			for _, node := range cluster.Nodes() {
				run(t, node.Namespace, "sh", "-ec", hostile)
			}
			if err := cluster.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			node1, node2 := cluster.Nodes()[0], cluster.Nodes()[1]
			for _, node := range cluster.Nodes() {
				run(t, node.Namespace, "sh", "-ec", hostileDefaults(tc.rpFilter))
			}
			far := addPod(t, node2, "far")
			if err := reachesAll(t, cluster, far); err != nil {
				t.Error(err)
			}
			neighbour := addPod(t, node1, "neighbour")
			if err := reachesAll(t, cluster, neighbour, far); err != nil {
				t.Error(err)
			}
			pod := addPod(t, node1, "pod")
			if err := reachesAll(t, cluster, pod, neighbour, far); err != nil {
				t.Error(err)
			}
		})
	}
}

// Pods are reachable again after another program has reset the node's sysctls.
func TestPodsSurviveResetSysctls(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	run(t, cluster.Nodes()[0].Namespace, "sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0",
		"net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.weft0.rp_filter=1", "net.ipv6.conf.weft0.accept_ra=2")
	run(t, cluster.Nodes()[1].Namespace, "sysctl", "-qw", "net.ipv4.conf.weft0.forwarding=0")
	if reachesAll(t, cluster, pod1, pod2) == nil {
		t.Fatal("nodes that route nothing connect pods; is this test still of use?")
	}
	eventually(t, "the pods to be connected again", func() error { return reachesAll(t, cluster, pod1, pod2) })
}

func TestPodsOfOneNodeExchangeFragmentsAndStreams(t *testing.T) {
	t.Parallel()
	node := startCluster(t, testnet.ClusterOptions{Nodes: 1}).Nodes()[0]
	pod1, pod2 := addPod(t, node, "a"), addPod(t, node, "b")
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			for _, pair := range [][2]*testnet.Pod{{pod1, pod2}, {pod2, pod1}} {
				from, to := pair[0], pair[1]
				f, largest := newFlow(t, from, to, v6), largestDatagram(t, node, v6)
				for _, size := range []int{largest, largest + 1, 3 * largest, 9000, 65_000} {
					payload := randomBytes(size, byte(size))
					f.send(t, payload, 0)
					f.expect(t, payload)
				}
				transfer(t, from.Namespace, to.Namespace, addrOf(t, to, v6), 8<<20)
			}
		})
	}
	expectNoChecksumErrors(t, pod1.Namespace, pod2.Namespace, node.Namespace)
}

func TestTooLargePacketGetsOverlaysMTU(t *testing.T) {
	t.Parallel()
	const smaller = 1300
	shrunk := ""
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true, Configure: func(weft map[string]any) {
		if weft["node"] == shrunk {
			weft["tun"].(map[string]any)["mtu"] = smaller
		}
	}})
	// A pod keeps the MTU with which it was made when the overlay's shrinks.
	pod, far := addPod(t, cluster.Nodes()[0], "a"), addPod(t, cluster.Nodes()[1], "b")
	shrunk = "node1"
	if err := cluster.Nodes()[0].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			f := newFlow(t, pod, far, v6)
			largest := largestDatagram(t, cluster.Nodes()[0], v6)
			never := f.option(unix.IP_PMTUDISC_DO, unix.IPV6_PMTUDISC_DO)
			if err := setOption(f.sender, f.level(), f.option(unix.IP_MTU_DISCOVER, unix.IPV6_MTU_DISCOVER), never); err != nil {
				t.Fatal(err)
			}
			f.send(t, randomBytes(largest+1, 1), 0) // the pod's kernel knows no better
			eventually(t, "the pod to learn what passes", func() error {
				way := run(t, pod.Namespace, "ip", "route", "get", f.to.Addr().Unmap().String())
				if !strings.Contains(way, fmt.Sprintf(" mtu %d", smaller)) {
					return errors.New(way)
				}
				return nil
			})
			payload := randomBytes(largest, 2)
			f.send(t, payload, 0)
			f.expect(t, payload) // and nothing before it
			transfer(t, pod.Namespace, far.Namespace, addrOf(t, far, v6), 1<<20)
			transfer(t, far.Namespace, pod.Namespace, addrOf(t, pod, v6), 1<<20)
		})
	}
}

func TestNoNodeHasABridge(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	expectPings(t, pod1, pod2)
	for _, node := range cluster.Nodes() {
		for _, kind := range []string{"bridge", "bridge_slave"} {
			if links := run(t, node.Namespace, "ip", "link", "show", "type", kind); links != "" {
				t.Errorf("on %s, of type %s: %s", node.Name(), kind, links)
			}
		}
	}
	// The bridge that carries the segment shows that this command finds bridges.
	if links := run(t, cluster.Segment.Namespace, "ip", "link", "show", "type", "bridge"); links == "" {
		t.Error("a bridge is not recognised")
	}
}

// keepIPv4 has the lists of nodes know their IPv4 pod CIDRs alone.
func keepIPv4(t *testing.T, cluster *testnet.Cluster) {
	t.Helper()
	var entries []testnet.NodeEntry
	for _, node := range cluster.Nodes() {
		entry := node.Entry()
		entry.PodCIDRs = entry.PodCIDRs[:1]
		entries = append(entries, entry)
	}
	for _, node := range cluster.Nodes() {
		if err := node.SetNodes(entries); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNodesOnWhichIPv6IsDisabledConnectIPv4Pods(t *testing.T) {
	t.Parallel()
	cluster := newCluster(t, testnet.ClusterOptions{Nodes: 2, Configure: func(weft map[string]any) {
		weft["clusterCIDRs"] = []string{"10.244.0.0/16"}
	}})
	keepIPv4(t, cluster)
	for _, node := range cluster.Nodes() {
		run(t, node.Namespace, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
	}
	if err := cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	node := cluster.Nodes()[0]
	pod, neighbour, far := addPod(t, node, "a"), addPod(t, node, "b"), addPod(t, cluster.Nodes()[1], "c")
	for _, other := range []*testnet.Pod{neighbour, far} {
		for _, err := range []error{
			reaches(t, pod.Namespace, other.Namespace, addrOf(t, other, false)),
			reaches(t, other.Namespace, pod.Namespace, addrOf(t, pod, false)),
			reaches(t, other.Node.Namespace, pod.Namespace, addrOf(t, pod, false)),
			reaches(t, pod.Namespace, cluster.Outside, testnet.OutsideAddr4),
		} {
			if err != nil {
				t.Error(err)
			}
		}
	}
	for _, n := range cluster.Nodes() {
		if addrs := run(t, n.Namespace, "ip", "-6", "addr"); addrs != "" {
			t.Errorf("%s speaks IPv6:\n%s", n.Name(), addrs)
		}
	}
	if err := node.DeletePod(t.Context(), "b"); err != nil {
		t.Error(err)
	}
	if links := run(t, node.Namespace, "ip", "link", "show", "group", "93"); strings.Count(links, "link/ether") != 1 {
		t.Errorf("the deleted pod's veth, or no other, is left:\n%s", links)
	}
}
