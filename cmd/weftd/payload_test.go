package main_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"weft/internal/testnet"
)

func TestTCPMessagesOfEverySizeArriveWhole(t *testing.T) {
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
	_ = conn.SetDeadline(time.Now().Add(testnet.WaitLimit))
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

func TestDatagramsOfEverySizeArriveAsTheyWereSent(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	expectPings(t, pod1, pod2) // what waits for keys may be overtaken, and is another test's affair
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

// Datagrams that differ in nothing but the mark come close behind each other: joining them
// without regard to the mark would lose one.
func TestTrafficClassesAndECNArrive(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	const atOnce, size = 16, 300
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			f := newFlow(t, pod1, pod2, v6)
			f.learnClasses(t)
			payload := randomBytes(size, 0)
			for first := 0; first < 256; first += atOnce {
				for _, datagrams := range []int{1, 8} {
					forEachHeld(t, cluster, func() {
						for class := first; class < first+atOnce; class++ {
							f.setClass(t, class)
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
