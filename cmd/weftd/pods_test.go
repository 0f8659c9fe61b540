package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

// promptly is how long a connection may take to be made. One whose first packet is lost
// takes a second (RFC 6298, section 2).
const promptly = 300 * time.Millisecond

// reaches returns nil if a connection is made promptly.
func reaches(t *testing.T, from, to *testnet.Namespace, addr netip.Addr) error {
	t.Helper()
	listener, err := to.Listen(t.Context(), "tcp", net.JoinHostPort(addr.String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), promptly)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", listener.Addr().String())
	if err == nil {
		conn.Close()
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

func TestPodsWorkWhateverTheDistributionSetsForInterfacesToCome(t *testing.T) {
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

func TestPodsAreReachedAgainAfterAnotherProgramSetTheNodesSettingsBack(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	run(t, cluster.Nodes()[0].Namespace, "sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0",
		"net.ipv4.conf.all.rp_filter=1", "net.ipv4.conf.weft0.rp_filter=1", "net.ipv6.conf.weft0.accept_ra=2")
	run(t, cluster.Nodes()[1].Namespace, "sysctl", "-qw", "net.ipv4.conf.weft0.forwarding=0")
	if reachesAll(t, cluster, pod1, pod2) == nil {
		t.Fatal("nodes that route nothing connect pods; is this test still of use?")
	}
	within(t, noticed, "the pods to be connected again", func() error { return reachesAll(t, cluster, pod1, pod2) })
}

func TestAPodReachesItselfThroughItsNodesAddressAndIsToldOfNoOtherWay(t *testing.T) {
	t.Parallel()
	node := startCluster(t, testnet.ClusterOptions{Nodes: 1}).Nodes()[0]
	pod := addPod(t, node, "pod")
	underlay4, _ := addressesOf(t, node, false)
	run(t, node.Namespace, "sysctl", "-qw", "net.ipv4.conf.all.send_redirects=1") // the kernel's default
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			addr := addrOf(t, pod, v6)
			underlay, _ := addressesOf(t, node, v6)
			ip := map[bool]string{false: "ip", true: "ip6"}[v6]
			run(t, node.Namespace, "nft", fmt.Sprintf(`table %[1]s hairpin {
				chain prerouting { type nat hook prerouting priority dstnat; %[1]s daddr %[2]s tcp dport 8080 dnat to %[3]s; }
				chain postrouting { type nat hook postrouting priority srcnat; %[1]s saddr %[4]s %[1]s daddr %[4]s masquerade; }
			}`, ip, underlay, netip.AddrPortFrom(addr, 7000), addr))
			frames, err := pod.Record(testnet.PodLink, func() error {
				// Not every kernel makes one for IPv4, and this one may not be sent at all.
				_ = redirect(node.Namespace, netip.MustParseAddr("169.254.1.1"), addrOf(t, pod, false), underlay4)
				for range 3 {
					done := serve(t, pod.Namespace, func(net.Conn) error { return nil })
					ctx, cancel := context.WithTimeout(t.Context(), promptly)
					conn, err := pod.Dial(ctx, "tcp", netip.AddrPortFrom(underlay, 8080).String())
					cancel()
					if err != nil {
						return err
					}
					conn.Close()
					if err := <-done; err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, frame := range frames {
				if what, is := icmpType(frame, v6); is && what == redirectType(v6) {
					t.Errorf("the pod is told of a better way: %x", frame)
				}
			}
		})
	}
}

// icmpType returns the type of the ICMP message in a frame, if it holds one.
func icmpType(frame []byte, v6 bool) (what byte, is bool) {
	packet := frame[14:]
	if v6 {
		return packet[40], packet[0]>>4 == 6 && packet[6] == unix.IPPROTO_ICMPV6
	}
	return packet[20], packet[0]>>4 == 4 && packet[9] == unix.IPPROTO_ICMP
}

func redirectType(v6 bool) byte {
	if v6 {
		return 137 // RFC 4861, section 4.5
	}
	return 5 // RFC 792
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

func TestAPacketTooLargeForTheOverlayIsAnsweredWithTheSizeThatPasses(t *testing.T) {
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

func TestAnAddressThatMovesOnIsReachedAtOnceFromEverywhere(t *testing.T) {
	t.Parallel()
	network := testnet.ForTest(t, testnet.Options{Prefix: "weftd", BinDir: binDir})
	cluster, err := network.NewCluster(t.Context(), testnet.ClusterOptions{Nodes: 2, Sealed: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	node, other := cluster.Nodes()[0], cluster.Nodes()[1]
	neighbour, far := addPod(t, node, "neighbour"), addPod(t, other, "far")
	addrs := []netip.Addr{netip.MustParseAddr("10.244.1.77"), netip.MustParseAddr("fd00:244:1::77")}
	clients := []*testnet.Namespace{neighbour.Namespace, far.Namespace, node.Namespace, other.Namespace}
	var holder *testnet.Namespace
	for _, name := range []string{"first", "second", "third"} {
		pod, err := network.AddNamespace(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if holder != nil {
			attach(t, "DEL", node, holder, addrs)
		}
		attach(t, "ADD", node, pod, addrs)
		holder = pod
		for _, addr := range addrs {
			answerDatagrams(t, pod, netip.AddrPortFrom(addr, 5000), name)
			for _, client := range clients {
				if err := reaches(t, client, pod, addr); err != nil {
					t.Errorf("the %s holder: %v", name, err)
				}
				// The same ports each time: connection tracking takes it for one flow.
				if answer := askDatagram(t, client, 5001, netip.AddrPortFrom(addr, 5000)); answer != name {
					t.Errorf("from %s, %q answers at %s instead of the %s holder", client.Name(), answer, addr, name)
				}
			}
		}
	}
	for _, pod := range []*testnet.Namespace{holder, neighbour.Namespace, far.Namespace} {
		expectPermanentNeighbours(t, pod, "dev", testnet.PodLink)
	}
	for line := range strings.Lines(run(t, node.Namespace, "ip", "-o", "link", "show", "group", "93")) {
		link, _, _ := strings.Cut(strings.Fields(line)[1], "@")
		expectPermanentNeighbours(t, node.Namespace, "dev", link)
	}
}

// expectPermanentNeighbours fails unless no entry of those that ip neigh show selects is
// ever asked for again, and there is one.
func expectPermanentNeighbours(t *testing.T, at *testnet.Namespace, which ...string) {
	t.Helper()
	permanent := 0
	for line := range strings.Lines(run(t, at, "ip", append([]string{"neigh", "show", "nud", "all"}, which...)...)) {
		switch {
		case strings.Contains(line, "PERMANENT"):
			permanent++
		case !strings.Contains(line, "NOARP"): // multicast
			t.Errorf("in %s, a neighbour that may grow stale: %s", at.Name(), line)
		}
	}
	if permanent == 0 {
		t.Errorf("in %s, there is no neighbour on %s", at.Name(), which)
	}
}

// attach adds a pod that asks for its addresses, or removes it.
func attach(t *testing.T, command string, node *testnet.Node, pod *testnet.Namespace, addrs []netip.Addr) {
	t.Helper()
	var list struct {
		Name, CNIVersion string
		Plugins          []map[string]any
	}
	if err := json.Unmarshal([]byte(read(t, conflist(node))), &list); err != nil {
		t.Fatal(err)
	}
	conf := list.Plugins[0]
	conf["name"], conf["cniVersion"] = list.Name, list.CNIVersion
	stdin, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	cmd := node.Command(t.Context(), filepath.Join(binDir, "weft-cni"))
	cmd.Stdin = strings.NewReader(string(stdin))
	cmd.Env = append(cmd.Env, "CNI_COMMAND="+command, "CNI_CONTAINERID="+pod.Name(), "CNI_NETNS="+pod.Path(),
		"CNI_IFNAME="+testnet.PodLink, "CNI_PATH="+binDir, fmt.Sprintf("CNI_ARGS=IP=%s,%s", addrs[0], addrs[1]))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s of %s: %v: %s", command, pod.Name(), err, out)
	}
}

// answerDatagrams answers each datagram with a name.
func answerDatagrams(t *testing.T, at *testnet.Namespace, addr netip.AddrPort, name string) {
	t.Helper()
	conn, err := listenUDP(at, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		for {
			_, from, err := conn.ReadFromUDPAddrPort(make([]byte, 100))
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort([]byte(name), from)
		}
	}()
}

// askDatagram sends one datagram from a port and returns what is answered promptly.
func askDatagram(t *testing.T, from *testnet.Namespace, port uint16, to netip.AddrPort) string {
	t.Helper()
	local := netip.IPv4Unspecified()
	if to.Addr().Is6() {
		local = netip.IPv6Unspecified()
	}
	conn, err := listenUDP(from, netip.AddrPortFrom(local, port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.WriteToUDPAddrPort([]byte("who are you"), to); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(promptly))
	answer := make([]byte, 100)
	n, err := conn.Read(answer)
	if err != nil {
		return err.Error()
	}
	return string(answer[:n])
}
