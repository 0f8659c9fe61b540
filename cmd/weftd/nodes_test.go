package main_test

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

func TestNoPodChangesTheWaysOfItsNodeOrOfAnotherPodByRedirects(t *testing.T) {
	t.Parallel()
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2})
	node, other := cluster.Nodes()[0], cluster.Nodes()[1]
	rogue, victim := addPod(t, node, "rogue"), addPod(t, node, "victim")
	run(t, node.Namespace, "sh", "-ec", hostileDefaults(2)+`
		for conf in /proc/sys/net/ipv4/conf/*; do echo 1 >$conf/accept_redirects; echo 0 >$conf/secure_redirects; done`)

	nodes, _ := addressesOf(t, node, false)
	others, _ := addressesOf(t, other, false)
	way := func(at *testnet.Namespace) string {
		return run(t, at, "ip", "route", "get", testnet.OutsideAddr4.String())
	}
	expectPings(t, victim)
	if err := pings(t, node.Namespace, others); err != nil { // the kernel takes redirects to who is there only
		t.Fatal(err)
	}
	for _, attack := range []struct {
		to                  *testnet.Namespace
		router, target, via netip.Addr
	}{
		{node.Namespace, testnet.OutsideUnderlay4, nodes, others},
		{node.Namespace, addrOf(t, rogue, false), nodes, others},
		{victim.Namespace, netip.MustParseAddr("169.254.1.1"), addrOf(t, victim, false), addrOf(t, rogue, false)},
		{victim.Namespace, addrOf(t, rogue, false), addrOf(t, victim, false), addrOf(t, rogue, false)},
	} {
		before := way(attack.to)
		if err := redirect(rogue.Namespace, attack.router, attack.target, attack.via); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		if now := way(attack.to); now != before {
			t.Errorf("a redirect by %s changed the way of %s from %s to %s", attack.router, attack.to.Name(), before, now)
		}
	}
	// The node does listen to its router.
	if err := redirect(cluster.Outside, testnet.OutsideUnderlay4, nodes, others); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a redirect of the router to have an effect", func() error {
		if now := way(node.Namespace); !strings.Contains(now, "via "+others.String()) {
			return errors.New(now)
		}
		return nil
	})
}

// redirect sends an ICMP redirect (RFC 792) as a router would that has forwarded a
// packet of target's to the outside.
func redirect(from *testnet.Namespace, router, target, via netip.Addr) error {
	ip := func(proto byte, from, to netip.Addr, payload []byte) []byte {
		b := make([]byte, 20, 20+len(payload))
		b[0], b[8], b[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
		copy(b[12:], from.AsSlice())
		copy(b[16:], to.AsSlice())
		binary.BigEndian.PutUint16(b[10:], checksum(b))
		return append(b, payload...)
	}
	echoReply := []byte{0, 0, 0xff, 0xff, 0, 0, 0, 0}
	message := append([]byte{redirectType(false), 1, 0, 0}, via.AsSlice()...)
	message = append(message, ip(unix.IPPROTO_ICMP, target, testnet.OutsideAddr4, echoReply)...)
	binary.BigEndian.PutUint16(message[2:], checksum(message))
	return from.Do(func() error {
		socket, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		return unix.Sendto(socket, ip(unix.IPPROTO_ICMP, router, target, message), 0, &unix.SockaddrInet4{Addr: target.As4()})
	})
}

// checksum is that of RFC 1071, over an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
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
	// What carries the segment is told by the same words.
	if links := run(t, cluster.Segment.Namespace, "ip", "link", "show", "type", "bridge"); links == "" {
		t.Error("a bridge is not recognised")
	}
}

func TestNodesOnWhichIPv6IsDisabledConnectIPv4Pods(t *testing.T) {
	t.Parallel()
	cluster := newCluster(t, testnet.ClusterOptions{Nodes: 2, Configure: func(weft map[string]any) {
		weft["clusterCIDRs"] = []string{"10.244.0.0/16"}
	}})
	var entries []testnet.NodeEntry
	for _, node := range cluster.Nodes() {
		entry := node.Entry()
		entry.PodCIDRs = entry.PodCIDRs[:1]
		entries = append(entries, entry)
	}
	for _, node := range cluster.Nodes() {
		run(t, node.Namespace, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
		if err := node.SetNodes(entries); err != nil {
			t.Fatal(err)
		}
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
