package main_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

// flow is a way for datagrams from one pod to another.
type flow struct {
	sender, receiver *net.UDPConn
	to               netip.AddrPort
}

func newFlow(t *testing.T, from, to *testnet.Pod, v6 bool) flow {
	t.Helper()
	open := func(pod *testnet.Pod) *net.UDPConn {
		conn, err := listenUDP(pod.Namespace, netip.AddrPortFrom(addrOf(t, pod, v6), 0))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	expectPingsOf(t, v6, from, to) // what is sent before two nodes have agreed on keys may be lost
	f := flow{sender: open(from), receiver: open(to)}
	f.to = f.receiver.LocalAddr().(*net.UDPAddr).AddrPort()
	return f
}

// send sends the payload as datagrams of the given size, or as one with size 0.
func (f flow) send(t *testing.T, payload []byte, size int) {
	t.Helper()
	if err := sendRun(f.sender, payload, size, f.to); err != nil {
		t.Fatalf("send %d bytes in datagrams of %d: %v", len(payload), size, err)
	}
}

// expect reads one datagram and returns the traffic class with which it arrived, if
// the receiver has asked for it.
func (f flow) expect(t *testing.T, want []byte) (class int) {
	t.Helper()
	payload, class, err := f.receive(t)
	if err != nil {
		t.Fatalf("a datagram of %d bytes does not arrive: %v", len(want), err)
	}
	if !bytes.Equal(payload, want) {
		t.Fatalf("a datagram of %d bytes arrived with %d, or with others", len(want), len(payload))
	}
	return class
}

// receive reads one datagram.
func (f flow) receive(t *testing.T) (payload []byte, class int, err error) {
	t.Helper()
	payload, control := make([]byte, 1<<16), make([]byte, 64)
	_ = f.receiver.SetReadDeadline(time.Now().Add(testnet.WaitLimit))
	n, controlLen, _, _, err := f.receiver.ReadMsgUDPAddrPort(payload, control)
	if err != nil {
		return nil, 0, err
	}
	messages, err := syscall.ParseSocketControlMessage(control[:controlLen])
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if m.Header.Type == unix.IPV6_TCLASS && m.Header.Level == unix.IPPROTO_IPV6 {
			class = int(binary.NativeEndian.Uint32(m.Data))
		}
		if m.Header.Type == unix.IP_TOS && m.Header.Level == unix.IPPROTO_IP {
			class = int(m.Data[0])
		}
	}
	return payload[:n], class, nil
}

// learnClasses has what arrives say its traffic class.
func (f flow) learnClasses(t *testing.T) {
	t.Helper()
	if err := setOption(f.receiver, f.level(), f.option(unix.IP_RECVTOS, unix.IPV6_RECVTCLASS), 1); err != nil {
		t.Fatal(err)
	}
}

// setClass gives what is sent from now on a traffic class.
func (f flow) setClass(t *testing.T, class int) {
	t.Helper()
	if err := setOption(f.sender, f.level(), f.option(unix.IP_TOS, unix.IPV6_TCLASS), class); err != nil {
		t.Fatal(err)
	}
}

func (f flow) level() int { return f.option(unix.IPPROTO_IP, unix.IPPROTO_IPV6) }

func (f flow) option(ipv4, ipv6 int) int {
	if f.to.Addr().Unmap().Is4() {
		return ipv4
	}
	return ipv6
}

// randomBytes returns different bytes for each seed.
func randomBytes(size int, seed byte) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// largestDatagram is the size of the payload that fills a packet between pods.
func largestDatagram(t *testing.T, node *testnet.Node, v6 bool) int {
	t.Helper()
	if v6 {
		return report(t, node).TUN.MTU - 40 - 8
	}
	return report(t, node).TUN.MTU - 20 - 8
}

// forEachHeld runs send and then receive, for datagrams that meet weft one by one, and
// for some that a node's weftd finds all at once: only then has it what to join.
func forEachHeld(t *testing.T, cluster *testnet.Cluster, send, receive func()) {
	t.Helper()
	send()
	receive()
	for _, node := range cluster.Nodes() {
		held(t, node, send)
		receive()
	}
}

// held runs f while the node's weftd does nothing.
func held(t *testing.T, node *testnet.Node, f func()) {
	t.Helper()
	signal := func(s syscall.Signal) {
		if err := syscall.Kill(node.PID(), s); err != nil {
			t.Fatal(err)
		}
	}
	signal(syscall.SIGSTOP)
	defer signal(syscall.SIGCONT)
	eventually(t, "weftd to stand still", func() error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", node.PID()))
		if err == nil && !bytes.Contains(stat, []byte(") T ")) { // proc_pid_stat(5)
			err = fmt.Errorf("it does not: %s", stat)
		}
		return err
	})
	f()
}

// expectBurst sends a payload several times at once, so that weft has datagrams to join,
// but each in a call of its own: older kernels take no run without checksum offload.
func (f flow) expectBurst(t *testing.T, payload []byte) {
	t.Helper()
	const burst = 4
	for range burst {
		f.send(t, payload, 0)
	}
	for range burst {
		f.expect(t, payload)
	}
}
