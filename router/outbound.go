package router

import (
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"weft/drop"
	"weft/encap"
	"weft/fib"
	"weft/packet"
	"weft/peer"
)

// outbound takes packets from one TUN queue to the peers. Its functions stand in
// the order in which a packet meets them.
type outbound struct {
	lane     int
	queue    Queue
	codec    Codec
	conn     Conn
	table    *atomic.Pointer[fib.Table]
	capture  *atomic.Pointer[Capture]
	counters *counters

	superPackets uint64 // in the present batch

	out encap.Batch // what the present batch sends; it shares memory with the queue's frames
}

// batch forwards what one read brings.
func (o *outbound) batch() error {
	frames, err := o.queue.Read()
	table, capture := o.table.Load(), o.capture.Load()
	o.out.Reset()
	o.superPackets = 0
	for i := range frames {
		copied := capture.copy(&frames[i])
		to, reason := o.forward(table, &frames[i])
		if reason != drop.None {
			o.counters.drop(reason)
		}
		if copied != nil {
			capture.take(copied, o.lane, true, nameOf(to), reason)
		}
	}
	o.send()
	return err
}

// forward decides where a packet goes and has it encoded. It returns the peer, if there is one.
func (o *outbound) forward(table *fib.Table, f *packet.Frame) (to *peer.Peer, reason drop.Reason) {
	header, ok := packet.Parse(f.Packet())
	if !ok {
		return nil, drop.Malformed
	}
	self := table.Self()
	if owner, _ := table.Lookup(header.Source); owner != self {
		return nil, drop.SourceNotLocal
	}
	to, ok = table.Lookup(header.Destination)
	if !ok {
		return nil, drop.NoRoute
	}
	if to == self {
		return nil, drop.DestinationLocal
	}
	super := f.Virtio.GSOType != 0 // its length is the frame's
	if !super {
		f.Trim(header.Len)
		if !f.Finish() {
			return to, drop.Unfinished
		}
	}
	reason = o.codec.Encode(&o.out, f, self, to)
	if super && reason == drop.None {
		o.superPackets++
	}
	return to, reason
}

// send writes the batch. What is refused is counted.
func (o *outbound) send() {
	if o.out.Len() == 0 {
		return
	}
	sent := o.conn.WriteBatch(&o.out)
	o.counters.add(Traffic{uint64(sent.Packets), uint64(sent.Bytes), o.superPackets})
	if sent.Refused > 0 {
		o.counters.drops[sendReason(sent.Err)].Add(uint64(sent.Refused))
	}
}

// sendReason distinguishes the errors that an operator can do something about
// (sendmsg(2), udp(7)).
func sendReason(errno syscall.Errno) drop.Reason {
	switch errno {
	case unix.EMSGSIZE:
		return drop.TooBig
	case unix.ENETUNREACH, unix.EHOSTUNREACH:
		return drop.Unreachable
	case unix.EPERM, unix.EACCES:
		return drop.SendRefused
	case unix.EAGAIN, unix.ENOBUFS:
		return drop.SendQueueFull
	default:
		return drop.SendFailed
	}
}
