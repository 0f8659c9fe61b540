// Package router forwards packets between the TUN device and the peers: one lane
// per queue, two goroutines per lane. outbound.go and inbound.go are the packet's
// way; here stands what surrounds them.
//
// It knows no control source, configures nothing on the host, and writes no logs.
package router

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"weft/drop"
	"weft/encap"
	"weft/fib"
	"weft/internal/poller"
	"weft/packet"
	"weft/peer"
)

// Queue is what a lane needs of a TUN device; package tun documents it.
type Queue interface {
	Read() ([]packet.Frame, error)
	Write(frames []packet.Frame) (int, error)
	Takes() (tcp, udp bool)
	Wake() error
}

// Conn is what a lane needs of a UDP socket; package encap documents it.
type Conn interface {
	ReadBatch() ([]encap.Received, error)
	WriteBatch(batch *encap.Batch) encap.Sent
	Wake() error
}

// Codec is what a lane needs of an encapsulation.
type Codec interface {
	// Encode adds to out what carries the packet f to the peer to. It may write into
	// f's headroom, and what it adds may share f's memory.
	Encode(out *encap.Batch, f *packet.Frame, from, to *peer.Peer) drop.Reason

	// Decode checks r, pulls everything off it that is not the packet, and returns
	// the peer that sent it. Without a peer, there is nothing to deliver; drop.None then
	// says that nothing is lost.
	Decode(r *encap.Received, table *fib.Table) (*peer.Peer, drop.Reason)
}

// Lane is one queue's path, shared with no other lane.
type Lane struct {
	Queue Queue
	Codec Codec
	Conn  Conn
}

// Router forwards packets in all lanes.
type Router struct {
	lanes    []lane
	table    atomic.Pointer[fib.Table]
	capture  atomic.Pointer[Capture] // nil unless an operator captures packets
	took     joins                   // what the first queue took when the router was made
	stopping struct{ inbound, outbound atomic.Bool }
}

// joins are the kinds of super-packets that a queue takes.
type joins struct{ tcp, udp bool }

type lane struct {
	Lane
	out, in counters
}

// New returns a router that will forward by table in the given lanes. Their queues and sockets
// stay the caller's, which must not use them while Run does.
func New(lanes []Lane, table *fib.Table) *Router {
	r := &Router{lanes: make([]lane, len(lanes))}
	for i := range lanes {
		r.lanes[i].Lane = lanes[i]
	}
	r.table.Store(table)
	if len(lanes) > 0 {
		r.took.tcp, r.took.udp = lanes[0].Queue.Takes()
	}
	return r
}

// Publish makes table the one that counts, from the next batch of each lane on.
func (r *Router) Publish(table *fib.Table) { r.table.Store(table) }

// Table returns the table that was published last.
func (r *Router) Table() *fib.Table { return r.table.Load() }

// Joins reports whether received segments are joined to super-packets in all lanes, of TCP
// and of UDP.
func (r *Router) Joins() (tcp, udp bool) {
	now := joins{len(r.lanes) > 0, len(r.lanes) > 0}
	for i := range r.lanes {
		tcp, udp := r.lanes[i].Queue.Takes()
		now.tcp, now.udp = now.tcp && tcp, now.udp && udp
	}
	return now.tcp, now.udp
}

// RefusedJoins reports which super-packets the kernel was expected to take, and has refused.
func (r *Router) RefusedJoins() (tcp, udp bool) {
	tcp, udp = r.Joins()
	return r.took.tcp && !tcp, r.took.udp && !udp
}

// Run forwards until ctx is done, or until a lane can no longer read. When it returns, all lanes
// have ended: no packet is in their hands, and what comes waits in the kernel's queues. Run may be
// called once.
func (r *Router) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	var receiving sync.WaitGroup
	for i := range r.lanes {
		l := &r.lanes[i]
		group.Go(func() error {
			o := outbound{lane: i, queue: l.Queue, codec: l.Codec, conn: l.Conn, table: &r.table, capture: &r.capture, counters: &l.out}
			return describe(ctx, repeat(o.batch, &l.out, &r.stopping.outbound), "lane %d, outbound", i)
		})
		receiving.Add(1)
		group.Go(func() error {
			defer receiving.Done()
			in := inbound{lane: i, conn: l.Conn, codec: l.Codec, queue: l.Queue, table: &r.table, capture: &r.capture, counters: &l.in}
			return describe(ctx, repeat(in.batch, &l.in, &r.stopping.inbound), "lane %d, inbound", i)
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		return r.stop(&receiving)
	})
	return group.Wait()
}

// stop ends the lanes: the busy ones after their batch, and those that wait now. The sockets have
// room for what comes while the last of them ends; the device's queues, which are shorter, are read
// until then.
func (r *Router) stop(receiving *sync.WaitGroup) error {
	var errs error
	r.stopping.inbound.Store(true)
	for i := range r.lanes {
		errs = errors.Join(errs, r.lanes[i].Conn.Wake())
	}
	receiving.Wait()
	r.stopping.outbound.Store(true)
	for i := range r.lanes {
		errs = errors.Join(errs, r.lanes[i].Queue.Wake())
	}
	if errs != nil {
		return fmt.Errorf("stop the lanes: %w", errs)
	}
	return nil
}

// describe makes nothing of an error that is due to the end of ctx.
func describe(ctx context.Context, err error, format string, args ...any) error {
	if err == nil || ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}

// maxFailures is how many reads in a row may fail before a lane gives up. A packet
// that a driver cannot read is one failure; a device that is broken fails every time.
const maxFailures = 100

// repeat calls batch until it is to stop, its queue or socket is closed, or fails for good.
func repeat(batch func() error, c *counters, stopping *atomic.Bool) error {
	for failures := 0; !stopping.Load(); {
		err := batch()
		if err == nil {
			failures = 0
			continue
		}
		if errors.Is(err, poller.ErrWoken) {
			continue
		}
		if errors.Is(err, os.ErrClosed) {
			return err
		}
		c.drop(drop.Unreadable)
		if failures++; failures == maxFailures {
			return fmt.Errorf("%d reads failed in a row, the last with: %w", failures, err)
		}
	}
	return nil
}
