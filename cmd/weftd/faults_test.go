package main_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

// expectWholeTransfers sends size bytes per family from one pod to the other, and
// fails if they arrive otherwise than as they were sent, if a kernel saw a wrong
// checksum, or if super-packets had no part in it.
func expectWholeTransfers(t *testing.T, from, to *testnet.Pod, size int64) {
	t.Helper()
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			transfer(t, from.Namespace, to.Namespace, addrOf(t, to, v6), size)
		})
	}
	expectNoChecksumErrors(t, from.Namespace, to.Namespace, from.Node.Namespace, to.Node.Namespace)
	sent, received := report(t, from.Node).Outbound, report(t, to.Node).Inbound
	// Few, because a sender that takes loss for congestion keeps its window small.
	const few = 2
	if sent.SuperPackets == 0 || sent.Packets < few*sent.SuperPackets {
		t.Errorf("%d packets were sent out of %d super-packets", sent.Packets, sent.SuperPackets)
	}
	if received.SuperPackets == 0 || received.Packets < few*received.SuperPackets {
		t.Errorf("%d packets were joined to %d super-packets", received.Packets, received.SuperPackets)
	}
}

// What was lost is a hole in a run, over which nothing may be joined.
func TestTransfersStayWholeWhenTheUnderlayLosesDatagrams(t *testing.T) {
	// The kernel cuts runs before they leave the node, and joins what is left of them
	// where they arrive: so the segment loses single datagrams, and not whole runs.
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Wire: testnet.Wire{Offloads: testnet.Bare}})
	pod1, pod2 := addPod(t, cluster.Nodes()[0], "a"), addPod(t, cluster.Nodes()[1], "b")
	run(t, cluster.Segment.Namespace, "nft", `
		table bridge loss {
			counter lost {}
			chain c {
				type filter hook prerouting priority 0
				udp dport 9338 numgen random mod 100 == 0 counter name lost drop
			}
		}`)
	expectWholeTransfers(t, pod1, pod2, 512<<20)
	lost := 0.0
	if _, after, ok := strings.Cut(run(t, cluster.Segment.Namespace, "nft", "list", "counter", "bridge", "loss", "lost"), "packets "); ok {
		lost = number(t, after)
	}
	if sent := report(t, pod1.Node).Outbound.Packets; lost < 0.008*float64(sent) {
		t.Errorf("of %d datagrams only %v were lost", sent, lost)
	}
}

// What came late or twice lies in the middle of a run, where its neighbours look as
// if they could be joined.
func TestTransfersStayWholeWhenDatagramsComeLateAndTwice(t *testing.T) {
	network := testnet.ForTest(t, testnet.Options{Prefix: "weftd", BinDir: binDir})
	cluster, err := network.NewCluster(t.Context(), testnet.ClusterOptions{Nodes: 2})
	if err != nil {
		t.Fatal(err)
	}
	relays := startRelays(t, network, cluster)
	if err := cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	pod1, pod2 := addPod(t, cluster.Nodes()[0], "a"), addPod(t, cluster.Nodes()[1], "b")
	expectWholeTransfers(t, pod1, pod2, 256<<20)
	for _, r := range relays {
		if r.late.Load() < 100 || r.twice.Load() < 100 {
			t.Errorf("on the way to %s only %d datagrams came late, and %d twice", r.to, r.late.Load(), r.twice.Load())
		}
	}
}

// randomBytes returns different bytes for each seed.
func randomBytes(size int, seed byte) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func TestTCPMessagesOfEverySizeArriveAsTheyWereSent(t *testing.T) {
	t.Parallel()
	_, pod1, pod2 := podsOnTwoNodes(t)
	var sizes []int
	for size := 1; size <= 3000; size++ { // more than two segments
		sizes = append(sizes, size)
	}
	for size := 59_950; size <= 61_050; size += 11 { // about the largest super-packet
		sizes = append(sizes, size)
	}
	sizes = append(sizes, 4096, 16<<10, 65_535, 65_536, 200_000)

	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			done := serve(t, pod2.Namespace, func(conn net.Conn) error {
				_, err := io.Copy(conn, conn)
				return err
			})
			conn, err := pod1.Dial(t.Context(), "tcp", net.JoinHostPort(addrOf(t, pod2, v6).String(), port))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for _, size := range sizes {
				expectEcho(t, conn, randomBytes(size, byte(size)))
			}
			conn.Close()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	expectNoChecksumErrors(t, pod1.Namespace, pod2.Namespace, pod1.Node.Namespace, pod2.Node.Namespace)
}

// expectEcho sends a message that the other side must send back.
func expectEcho(t *testing.T, conn net.Conn, message []byte) {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	sent := make(chan error, 1)
	go func() {
		_, err := conn.Write(message)
		sent <- err
	}()
	answer := make([]byte, len(message))
	_, err := io.ReadFull(conn, answer)
	if err := errors.Join(err, <-sent); err != nil {
		t.Fatalf("a message of %d bytes: %v", len(message), err)
	}
	if !bytes.Equal(answer, message) {
		t.Fatalf("a message of %d bytes did not come back as it was sent", len(message))
	}
}

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
	payload, control := make([]byte, 1<<16), make([]byte, 64)
	_ = f.receiver.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, controlLen, _, _, err := f.receiver.ReadMsgUDPAddrPort(payload, control)
	if err != nil {
		t.Fatalf("a datagram of %d bytes does not arrive: %v", len(want), err)
	}
	if !bytes.Equal(payload[:n], want) {
		t.Fatalf("a datagram of %d bytes arrived with %d, or with others", len(want), n)
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
	return class
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

func TestDatagramsOfEverySizeArriveAsTheyWereSent(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	const atOnce = 40
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			f, largest := newFlow(t, pod1, pod2, v6), largestDatagram(t, pod1.Node, v6)
			for first := 0; first <= largest; first += atOnce {
				var payloads [][]byte // of growing, equal, and shrinking size
				for size := first; size <= min(first+atOnce, largest); size++ {
					payloads = append(payloads, randomBytes(size, byte(size)))
				}
				for _, payload := range slices.Backward(payloads) {
					payloads = append(payloads, payload)
				}
				f.expectAll(t, cluster, payloads)
			}
			for _, size := range []int{largest + 1, 2 * largest, 9000, 60_000, 65_000} { // fragments
				f.expectAll(t, cluster, [][]byte{randomBytes(size, byte(size))})
			}
		})
	}
	expectNoChecksumErrors(t, pod1.Namespace, pod2.Namespace, pod1.Node.Namespace, pod2.Node.Namespace)
}

// expectAll sends datagrams and fails unless they arrive in their order.
func (f flow) expectAll(t *testing.T, cluster *testnet.Cluster, payloads [][]byte) {
	t.Helper()
	forEachHeld(t, cluster, func() {
		for _, payload := range payloads {
			f.send(t, payload, 0)
		}
	}, func() {
		for _, payload := range payloads {
			f.expect(t, payload)
		}
	})
}

func TestRunsOfDatagramsArriveAsTheyWereSent(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			f, largest := newFlow(t, pod1, pod2, v6), largestDatagram(t, pod1.Node, v6)
			for _, size := range []int{2, 3, 17, 100, 512, 1000, 1200, largest - 1, largest} {
				runs := runsOf(size)
				forEachHeld(t, cluster, func() {
					for _, payload := range runs {
						f.send(t, payload, size)
					}
				}, func() {
					for _, payload := range runs {
						for datagram := range slices.Chunk(payload, size) {
							f.expect(t, datagram)
						}
					}
				})
			}
		})
	}
	expectNoChecksumErrors(t, pod1.Namespace, pod2.Namespace, pod1.Node.Namespace, pod2.Node.Namespace)
	if sent := report(t, pod1.Node).Outbound; sent.SuperPackets < 1000 {
		t.Errorf("only %d runs reached weft in one piece", sent.SuperPackets)
	}
}

// runsOf returns payloads of some datagrams of a size, and a shorter one behind them.
func runsOf(size int) (payloads [][]byte) {
	for _, full := range []int{1, 2, 3, 7, 15, 31, 42, 43, 44, 63} {
		for _, last := range []int{0, 1, size / 2, size - 1} {
			// In IPv6 too, all of it must fit one packet before it is cut.
			if total := full*size + last; total <= maxRun-20 {
				payloads = append(payloads, randomBytes(total, byte(total)))
			}
		}
	}
	return payloads
}

// Datagrams that differ in nothing but the mark come close behind each other, so that
// whoever joins them without looking at it loses one.
func TestTrafficClassesAndCongestionMarksArriveAsTheyWereSent(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	const atOnce, size = 16, 300
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			level, mark, learn := unix.IPPROTO_IP, unix.IP_TOS, unix.IP_RECVTOS
			if v6 {
				level, mark, learn = unix.IPPROTO_IPV6, unix.IPV6_TCLASS, unix.IPV6_RECVTCLASS
			}
			f := newFlow(t, pod1, pod2, v6)
			if err := setOption(f.receiver, level, learn, 1); err != nil {
				t.Fatal(err)
			}
			payload := randomBytes(size, 0)
			for first := 0; first < 256; first += atOnce {
				for _, datagrams := range []int{1, 8} {
					forEachHeld(t, cluster, func() {
						for class := first; class < first+atOnce; class++ {
							if err := setOption(f.sender, level, mark, class); err != nil {
								t.Fatal(err)
							}
							f.send(t, bytes.Repeat(payload, datagrams), size)
						}
					}, func() {
						for i := range atOnce * datagrams {
							want := first + i/datagrams
							if got := f.expect(t, payload); got != want {
								t.Fatalf("traffic class %#x arrives as %#x", want, got)
							}
						}
					})
				}
			}
		})
	}
	expectNoChecksumErrors(t, pod1.Namespace, pod2.Namespace, pod1.Node.Namespace, pod2.Node.Namespace)
}

// With the checksum offload of the pods' links off, what is captured there is what a
// real card would send.
func TestPodsWithoutChecksumOffloadSeeOnlyValidChecksums(t *testing.T) {
	t.Parallel()
	_, pod1, pod2 := podsOnTwoNodes(t)
	for _, pod := range []*testnet.Pod{pod1, pod2} {
		run(t, pod.Namespace, "ethtool", "-K", "eth0", "tx", "off", "rx", "off")
		veth := strings.TrimSpace(run(t, pod.Node.Namespace, "sh", "-c", "ip -o link show type veth group 93 | cut -d: -f2 | cut -d@ -f1"))
		run(t, pod.Node.Namespace, "ethtool", "-K", veth, "tx", "off")
	}
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			captures := []*capture{startCapture(t, pod2.Namespace, "tcp"), startCapture(t, pod2.Namespace, "udp")}
			transfer(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, v6), 4<<20)
			f := newFlow(t, pod1, pod2, v6)
			for size := range 1000 {
				f.expectBurst(t, randomBytes(size, byte(size)))
			}
			for i, protocol := range []string{"TCP", "UDP"} {
				if seen := captures[i].stop(t); len(seen) != 1 || seen["Good"] < 1000 {
					t.Errorf("tshark sees %s checksums: %v", protocol, seen)
				}
			}
		})
	}
	expectNoChecksumErrors(t, pod1.Namespace, pod2.Namespace, pod1.Node.Namespace, pod2.Node.Namespace)
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
