package main_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

// A pod reaches itself by its node's address, and the node sends it no ICMP redirect.
func TestPodReachesItselfWithoutRedirect(t *testing.T) {
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
					ctx, cancel := context.WithTimeout(t.Context(), testnet.WaitLimit)
					err := dialOnce(ctx, pod.Namespace, netip.AddrPortFrom(underlay, 8080).String())
					cancel()
					if err != nil {
						return err
					}
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
					t.Errorf("the pod receives a redirect: %x", frame)
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

// A pod's ICMP redirects change no route of its node or of another pod.
func TestPodsRedirectsChangeNoRoute(t *testing.T) {
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
	// The kernel accepts redirects only to a neighbour that exists.
	eventually(t, "the other node to answer", func() error { return pings(t, node.Namespace, others) })
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
