package router

import (
	"sync/atomic"

	"weft/encap"
	"weft/router/drop"
	"weft/router/fib"
	"weft/router/packet"
)

// inbound takes datagrams from one UDP socket to the pods. Its functions stand in
// the order in which a packet meets them.
type inbound struct {
	conn     Conn
	codec    Codec
	queue    Queue
	table    *atomic.Pointer[fib.Table]
	counters *counters

	frames []packet.Frame // of the present batch; they share memory with the datagrams
}

func (in *inbound) run() error { return repeat(in.batch, in.counters) }

// batch delivers what one read brings.
func (in *inbound) batch() error {
	received, err := in.conn.ReadBatch()
	table := in.table.Load()
	in.frames = in.frames[:0]
	for i := range received {
		if reason := in.deliver(table, &received[i]); reason != drop.None {
			in.counters.drop(reason)
		}
	}
	in.write()
	return err
}

// deliver decides whether a packet may go on to a pod. Only a peer may send it,
// only from what lies behind that peer, and only to what lies behind this node.
func (in *inbound) deliver(table *fib.Table, r *encap.Received) drop.Reason {
	peer, reason := in.codec.Decode(r, table)
	if reason != drop.None {
		return reason
	}
	header, ok := packet.Parse(r.Packet())
	if !ok {
		return drop.Malformed
	}
	if owner, _ := table.Lookup(header.Source); owner != peer {
		return drop.SourceNotPeer
	}
	if owner, _ := table.Lookup(header.Destination); owner != table.Self() {
		return drop.DestinationNotLocal
	}
	r.Trim(header.Len)
	r.Virtio, _ = packet.PartialChecksum(r.Packet()) // as a kernel peer may send it
	in.frames = append(in.frames, r.Frame)
	return drop.None
}

// write hands the batch to the kernel.
func (in *inbound) write() {
	if len(in.frames) == 0 {
		return
	}
	var bytes uint64
	for i := range in.frames {
		bytes += uint64(in.frames[i].Len())
	}
	// A refused packet is rare and its length does not come back: the bytes count
	// what was handed over.
	written, _ := in.queue.Write(in.frames)
	for range len(in.frames) - written {
		in.counters.drop(drop.WriteRefused)
	}
	in.counters.add(uint64(written), bytes)
}
