package router

import (
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"weft/encap"
	"weft/router/drop"
	"weft/router/fib"
	"weft/router/packet"
)

// outbound takes packets from one TUN queue to the peers. Its functions stand in
// the order in which a packet meets them.
type outbound struct {
	queue    Queue
	codec    Codec
	conn     Conn
	table    *atomic.Pointer[fib.Table]
	counters *counters

	datagrams []encap.Datagram // of the present batch; they share memory with the queue's frames
	bytes     []int            // the packet's length for each of them
}

func (o *outbound) run() error { return repeat(o.batch, o.counters) }

// batch forwards what one read brings.
func (o *outbound) batch() error {
	frames, err := o.queue.Read()
	table := o.table.Load()
	o.datagrams, o.bytes = o.datagrams[:0], o.bytes[:0]
	for i := range frames {
		if reason := o.forward(table, &frames[i]); reason != drop.None {
			o.counters.drop(reason)
		}
	}
	o.send()
	return err
}

// forward decides where a packet goes and has it encoded.
func (o *outbound) forward(table *fib.Table, f *packet.Frame) drop.Reason {
	header, ok := packet.Parse(f.Packet())
	if !ok {
		return drop.Malformed
	}
	self := table.Self()
	if owner, _ := table.Lookup(header.Source); owner != self {
		return drop.SourceNotLocal
	}
	peer, ok := table.Lookup(header.Destination)
	if !ok {
		return drop.NoRoute
	}
	if peer == self {
		return drop.DestinationLocal
	}
	f.Trim(header.Len)
	var reason drop.Reason
	encoded := len(o.datagrams)
	o.datagrams, reason = o.codec.Encode(o.datagrams, f, self, peer)
	for range o.datagrams[encoded:] {
		o.bytes = append(o.bytes, header.Len)
	}
	return reason
}

// send writes the batch. A datagram that is refused is counted and skipped.
func (o *outbound) send() {
	var packets, bytes uint64
	for pending, lengths := o.datagrams, o.bytes; len(pending) > 0; {
		sent, err := o.conn.WriteBatch(pending)
		for _, length := range lengths[:sent] {
			bytes += uint64(length)
		}
		packets += uint64(sent)
		pending, lengths = pending[sent:], lengths[sent:]
		if err != nil {
			o.counters.drop(sendReason(err))
			pending, lengths = pending[1:], lengths[1:]
		}
	}
	o.counters.add(packets, bytes)
}

// sendReason tells the errors apart that an operator can do something about
// (sendmsg(2), udp(7)).
func sendReason(err error) drop.Reason {
	switch {
	case errors.Is(err, unix.EMSGSIZE):
		return drop.TooBig
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH):
		return drop.Unreachable
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return drop.SendRefused
	default:
		return drop.SendFailed
	}
}
