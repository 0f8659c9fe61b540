package router

import (
	"net/netip"
	"sync/atomic"

	"weft/drop"
	"weft/encap"
	"weft/fib"
	"weft/packet"
	"weft/peer"
)

// inbound takes datagrams from one UDP socket to the pods. Its functions stand in
// the order in which a packet meets them.
type inbound struct {
	lane     int
	conn     Conn
	codec    Codec
	queue    Queue
	table    *atomic.Pointer[fib.Table]
	capture  *atomic.Pointer[Capture]
	counters *counters

	coalesce  bool // whether queue takes super-packets now
	coalescer packet.Coalescer
	frames    []packet.Frame // of the present batch; they share memory with the datagrams

	packets, bytes uint64 // in the batch

	last struct { // the sender of the last packet that was delivered, and the packet's addresses
		peer                *peer.Peer
		source, destination netip.Addr
	}
}

// batch delivers what one read brings.
func (in *inbound) batch() error {
	received, err := in.conn.ReadBatch()
	table, capture := in.table.Load(), in.capture.Load()
	in.frames = in.frames[:0]
	in.coalescer.Reset()
	in.coalescer.TCP, in.coalescer.UDP = in.queue.Takes()
	in.coalesce = in.coalescer.TCP || in.coalescer.UDP
	in.last.peer, in.packets, in.bytes = nil, 0, 0
	for i := range received {
		r := &received[i]
		from, reason := in.codec.Decode(r, table)
		if from != nil { // otherwise it is dropped, or not a packet
			copied := capture.copy(&r.Frame)
			reason = in.deliver(table, from, r)
			if copied != nil {
				capture.take(copied, in.lane, false, from.Name, reason)
			}
		}
		if reason != drop.None {
			in.counters.drop(reason)
		}
	}
	in.write()
	return err
}

// deliver decides whether a peer's packet may go on to a pod: only from what lies behind that peer,
// and only to what lies behind this node.
func (in *inbound) deliver(table *fib.Table, peer *peer.Peer, r *encap.Received) drop.Reason {
	if !packet.MergeECN(r.Packet(), r.Class) {
		return drop.Congestion
	}
	// The checks that the packet before has passed hold for the next one of its flow.
	if peer == in.last.peer && in.coalescer.Continue(r.Packet()) {
		in.packets++
		in.bytes += uint64(r.Len())
		return drop.None
	}
	header, ok := packet.Parse(r.Packet())
	if !ok {
		return drop.Malformed
	}
	// Most packets of a batch belong to the flow of the packet before.
	if peer != in.last.peer || header.Source != in.last.source || header.Destination != in.last.destination {
		if owner, _ := table.Lookup(header.Source); owner != peer {
			return drop.SourceNotPeer
		}
		if owner, _ := table.Lookup(header.Destination); owner != table.Self() {
			return drop.DestinationNotLocal
		}
		in.last.peer, in.last.source, in.last.destination = peer, header.Source, header.Destination
	}
	r.Trim(header.Len)
	r.Virtio, _ = packet.PartialChecksum(r.Packet())
	in.packets++
	in.bytes += uint64(header.Len)
	if in.coalesce {
		in.coalescer.Add(r.Frame)
	} else {
		in.frames = append(in.frames, r.Frame)
	}
	return drop.None
}

// write hands the batch to the kernel.
func (in *inbound) write() {
	frames := in.frames
	if in.coalesce {
		frames = in.coalescer.Frames()
	}
	if len(frames) == 0 {
		return
	}
	// A refused packet is rare and its length does not come back: the bytes count
	// what was handed over.
	written, _ := in.queue.Write(frames)
	if refused := in.packets - uint64(written); refused > 0 {
		in.counters.drops[drop.WriteRefused].Add(refused)
	}
	superPackets := uint64(0)
	for i := range frames {
		if frames[i].Rest != nil {
			superPackets++
		}
	}
	in.counters.add(Traffic{uint64(written), in.bytes, superPackets})
}
