package main_test

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

// withTOS sends a datagram with a TOS between pods and returns the TOS that it arrives
// with, or false if it does not arrive.
func withTOS(t *testing.T, from, to *testnet.Pod, tos int) (arrived int, ok bool) {
	t.Helper()
	option := func(c *net.UDPConn, name, value int) {
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		controlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, name, value) })
		if err := errors.Join(controlErr, err); err != nil {
			t.Fatal(err)
		}
	}
	receiver, sender := socketAt(t, to.Namespace, 0), socketAt(t, from.Namespace, 0)
	defer receiver.Close()
	defer sender.Close()
	option(receiver, unix.IP_RECVTOS, 1)
	option(sender, unix.IP_TOS, tos)
	target := &net.UDPAddr{IP: addrOf(t, to, false).AsSlice(), Port: receiver.LocalAddr().(*net.UDPAddr).Port}
	if _, err := sender.WriteTo([]byte("?"), target); err != nil {
		t.Fatal(err)
	}
	_ = receiver.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	control := make([]byte, 64)
	_, n, _, _, err := receiver.ReadMsgUDP(make([]byte, 10), control)
	if err != nil {
		return 0, false
	}
	messages, err := syscall.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		t.Fatalf("control messages %v: %v", messages, err)
	}
	return int(messages[0].Data[0]), true
}

func TestCongestionOnTheUnderlayReachesThePodsThatUnderstandIt(t *testing.T) {
	t.Parallel()
	cluster, a, b := podsOnTwoNodes(t)
	const (
		capable0, capable1, congestion = 2, 1, 3
		expedited                      = 46 << 2
	)
	for _, tos := range []int{0, capable0, capable1, congestion, expedited | capable0} {
		if got, ok := withTOS(t, a, b, tos); !ok || got != tos {
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
		if got, ok := withTOS(t, a, b, c.tos); !ok || got != c.want {
			t.Errorf("with congestion TOS %#x arrives as %#x, %v; want %#x", c.tos, got, ok, c.want)
		}
	}
	if got, ok := withTOS(t, a, b, 0); ok {
		t.Errorf("a packet whose flow does not understand congestion arrives all the same, with TOS %#x", got)
	}
	if dropped := metric(t, node, `weft_drops_total{reason="congestion"}`); dropped != "1" {
		t.Errorf("%s packets are counted as dropped for congestion, want 1", dropped)
	}
	if out := run(t, node.Namespace, "nft", "list", "counter", "ip", "underlay", "expedited"); !strings.Contains(out, "packets 1 ") {
		t.Errorf("the outer header does not show DSCP and ECN: %s", out)
	}
}
