// Package tuntest is a TUN queue in memory, for tests.
package tuntest

import (
	"bytes"
	"fmt"
	"os"
	"sync"

	"weft/internal/poller"
	"weft/packet"
)

// Queue is a queue that reads what a test injects and keeps what is written.
// Several goroutines may use it.
type Queue struct {
	// Refuse, if set before the first Write, decides which packets the kernel refuses.
	Refuse func(packet []byte) bool

	batches chan [][]byte
	frames  []packet.Frame
	woken   chan struct{}
	closed  chan struct{}
	once    sync.Once

	mu      sync.Mutex
	written [][]byte
}

// NewQueue returns an open queue for packets of up to 9,000 bytes, 64 in a batch.
func NewQueue() *Queue {
	return &Queue{
		batches: make(chan [][]byte, 64),
		frames:  packet.NewFrames(64, 9000),
		woken:   make(chan struct{}, 1),
		closed:  make(chan struct{}),
	}
}

// Inject has one Read return the given packets.
func (q *Queue) Inject(packets ...[]byte) { q.batches <- packets }

// Written returns copies of the packets written so far.
func (q *Queue) Written() [][]byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	return bytesClone(q.written)
}

// Read waits for the next batch injected.
func (q *Queue) Read() ([]packet.Frame, error) {
	select {
	case batch := <-q.batches:
		for i, b := range batch {
			q.frames[i].Fill(copy(q.frames[i].Reset(), b))
		}
		return q.frames[:len(batch)], nil
	case <-q.woken:
		return nil, fmt.Errorf("read the test queue: %w", poller.ErrWoken)
	case <-q.closed:
		return nil, fmt.Errorf("read the test queue: %w", os.ErrClosed)
	}
}

// Write keeps what Refuse does not refuse.
func (q *Queue) Write(frames []packet.Frame) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for i := range frames {
		if q.Refuse != nil && q.Refuse(frames[i].Packet()) {
			continue
		}
		q.written = append(q.written, bytes.Clone(frames[i].Packet()))
		n++
	}
	if n < len(frames) {
		return n, os.ErrInvalid
	}
	return n, nil
}

// Takes says no.
func (q *Queue) Takes() (tcp, udp bool) { return false, false }

// Wake ends the present Read, or the next one that waits.
func (q *Queue) Wake() error {
	select {
	case q.woken <- struct{}{}:
	default: // the next one ends already
	}
	return nil
}

// Close ends Read. It may be called more than once.
func (q *Queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

func bytesClone(packets [][]byte) [][]byte {
	clones := make([][]byte, len(packets))
	for i := range packets {
		clones[i] = bytes.Clone(packets[i])
	}
	return clones
}
