package scale

import (
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"weft/encap"
	"weft/packet"
)

const (
	perBatch   = 64
	packetSize = 200 // at most, in bytes
)

// load is a packet, or a datagram with its sender.
type load struct {
	bytes []byte
	from  netip.AddrPort
}

// feed hands out batches until it is stopped: one every pace, or without a pause if
// pace is 0. It times each from when it was due to when the router is done with it.
// Only its reader touches it while it runs.
type feed struct {
	packets []load
	pace    time.Duration
	next    int
	batches int             // handed out
	took    []time.Duration // up to its capacity
	due     time.Time

	stopped chan struct{} // no more batches
	idle    chan struct{} // closed when what was handed out is done with
	closed  chan struct{}
	once    sync.Once
}

func newFeed(packets []load, pace time.Duration) *feed {
	return &feed{
		packets: packets, pace: pace, took: make([]time.Duration, 0, 1<<20),
		stopped: make(chan struct{}), idle: make(chan struct{}), closed: make(chan struct{}),
	}
}

// wait returns false when there is nothing more to read.
func (f *feed) wait() bool {
	if !f.due.IsZero() && len(f.took) < cap(f.took) {
		f.took = append(f.took, time.Since(f.due))
	}
	select {
	case <-f.stopped:
		close(f.idle)
		<-f.closed
		return false
	default:
	}
	f.due = time.Now().Add(f.pace)
	if f.pace > 0 {
		// Like a read of a device, this blocks in the kernel. What it takes to come back,
		// when others use the processors, is part of what a packet has to wait.
		pause := unix.NsecToTimespec(f.pace.Nanoseconds())
		_ = unix.Nanosleep(&pause, nil) // EINTR only makes it shorter
	}
	f.batches++
	return true
}

// fill puts the next packet into a frame, and returns who sent it.
func (f *feed) fill(frame *packet.Frame) (from netip.AddrPort) {
	l := f.packets[f.next]
	frame.Fill(copy(frame.Reset(), l.bytes))
	f.next = (f.next + 1) % len(f.packets)
	return l.from
}

func (f *feed) close() { f.once.Do(func() { close(f.closed) }) }

// queue is a TUN queue: it feeds packets and counts what is written.
type queue struct {
	*feed
	frames  []packet.Frame
	written int
}

func newQueue(packets []load, pace time.Duration) *queue {
	return &queue{feed: newFeed(packets, pace), frames: packet.NewFrames(perBatch, packetSize)}
}

func (q *queue) Read() ([]packet.Frame, error) {
	if !q.wait() {
		return nil, os.ErrClosed
	}
	for i := range q.frames {
		q.fill(&q.frames[i])
	}
	return q.frames, nil
}

func (q *queue) Write(frames []packet.Frame) (int, error) {
	q.written += len(frames)
	return len(frames), nil
}

func (q *queue) Takes() (tcp, udp bool) { return false, false }

func (q *queue) Wake() error {
	q.close()
	return nil
}

// conn is a UDP socket: it feeds datagrams and counts what is sent.
type conn struct {
	*feed
	received []encap.Received
	sent     int
	mixed    error // a batch that was sent by more than one table
}

func newConn(datagrams []load, pace time.Duration) *conn {
	c := &conn{feed: newFeed(datagrams, pace)}
	for _, f := range packet.NewFrames(perBatch, packetSize) {
		c.received = append(c.received, encap.Received{Frame: f})
	}
	return c
}

func (c *conn) ReadBatch() ([]encap.Received, error) {
	if !c.wait() {
		return nil, os.ErrClosed
	}
	for i := range c.received {
		c.received[i].From = c.fill(&c.received[i].Frame)
	}
	return c.received, nil
}

func (c *conn) WriteBatch(batch *encap.Batch) encap.Sent {
	first, n := uint16(0), 0
	for to := range batch.Datagrams() {
		port := to.Endpoint.Port()
		if n++; n == 1 {
			first = port
		}
		if port != first {
			c.mixed = fmt.Errorf("one batch goes to ports %d and %d", first, port)
		}
	}
	c.sent += n
	return encap.Sent{Packets: n}
}

func (c *conn) Wake() error {
	c.close()
	return nil
}
