package main_test

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

// stream is datagrams with numbers, one in each interval or some more.
type stream struct {
	flow flow
	stop chan struct{}
	sent chan uint32  // how many
	seen chan []int   // how often each number has arrived
	last atomic.Int64 // how many have arrived, or were overtaken
}

func startStream(t *testing.T, from, to *testnet.Pod, interval time.Duration) *stream {
	t.Helper()
	s := &stream{flow: newFlow(t, from, to, false), stop: make(chan struct{}), sent: make(chan uint32, 1), seen: make(chan []int, 1)}
	// A receiver that waits for a processor must lose nothing.
	if err := setOption(s.flow.receiver, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		t.Fatal(err)
	}
	go func() {
		var n uint32
		payload := make([]byte, 200)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-s.stop:
				s.sent <- n
				return
			case <-ticker.C:
				binary.BigEndian.PutUint32(payload, n)
				if _, err := s.flow.sender.WriteToUDPAddrPort(payload, s.flow.to); err == nil {
					n++
				}
			}
		}
	}()
	go func() {
		var seen []int
		for payload := make([]byte, 200); ; {
			if _, err := s.flow.receiver.Read(payload); err != nil {
				s.seen <- seen
				return
			}
			n := int(binary.BigEndian.Uint32(payload))
			for len(seen) <= n {
				seen = append(seen, 0)
			}
			seen[n]++
			s.last.Store(int64(len(seen)))
		}
	}()
	return s
}

// end returns how many datagrams were sent, were lost, and came more than once.
func (s *stream) end() (sent, lost, again int) {
	close(s.stop)
	sent = int(<-s.sent)
	// Datagrams on the way arrive, unless the last one is lost.
	for deadline := time.Now().Add(testnet.WaitLimit); int(s.last.Load()) < sent && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	s.flow.receiver.Close()
	seen := <-s.seen
	for n := range sent {
		switch {
		case n >= len(seen) || seen[n] == 0:
			lost++
		case seen[n] > 1:
			again++
		}
	}
	return sent, lost, again
}

func TestRotationsUnderLoadLoseNothing(t *testing.T) {
	const leastDatagrams = 1000
	rotations, least := testnet.Sampled(20, 100), testnet.Sampled[int64](50<<20, 1<<30)
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true})
	pod1, pod2 := addPod(t, cluster.Nodes()[0], "a"), addPod(t, cluster.Nodes()[1], "b")
	expectPingsOf(t, false, pod1, pod2) // the first keys

	numbers := startStream(t, pod1, pod2, time.Millisecond)
	rotated := make(chan error, 1)
	go func() {
		for i := range rotations {
			node := cluster.Nodes()[i%2]
			if _, err := node.Exec(t.Context(), filepath.Join(binDir, "weft"), "--socket", node.Socket(), "rotate-key"); err != nil {
				rotated <- fmt.Errorf("rotation %d: %w", i, err)
				return
			}
		}
		rotated <- nil
	}()
	moved, done := int64(0), false
	for !done || moved < least || numbers.last.Load() < leastDatagrams {
		const size = 16 << 20
		transfer(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, false), size)
		moved += size
		select {
		case err := <-rotated:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		default:
		}
	}
	sent, lost, again := numbers.end()
	t.Logf("%d MB of TCP and %d datagrams passed %d rotations", moved>>20, sent, rotations)
	if lost > 0 || again > 0 {
		t.Errorf("of %d datagrams %d were lost, and %d came more than once", sent, lost, again)
	}
	for _, node := range cluster.Nodes() {
		eventually(t, node.Name()+" to have agreed on keys at each rotation", func() error { // the answerer a moment later
			if n := number(t, metric(t, node, `weft_handshakes_total{result="agreed"}`)); n < float64(rotations) {
				return fmt.Errorf("%v times", n)
			}
			return nil
		})
		for _, reason := range []string{"no_keys", "unknown_index", "replayed", "not_authentic", "unknown_peer"} {
			if n := metric(t, node, fmt.Sprintf("weft_drops_total{reason=%q}", reason)); n != "0" {
				t.Errorf("%s has dropped %s datagrams as %s", node.Name(), n, reason)
			}
		}
	}
}
