package encap

import (
	"iter"
	"unsafe"

	"golang.org/x/sys/unix"

	"weft/peer"
)

const (
	// maxSegments is how many datagrams one UDP GSO message may hold: UDP_MAX_SEGMENTS
	// in include/linux/udp.h, 64 before Linux 6.9 and 128 since.
	maxSegments = 64

	// maxMessage is the largest UDP payload in bytes, of one datagram or of a run:
	// 65,535 less the UDP and the larger of the two IP headers.
	maxMessage = 65535 - 8 - 40
)

// MaxSuperPacket and MaxSegments bound a super-packet, in bytes and in segments, so
// that it fits one run together with the headers of its segments (43 with an MTU of
// 1450). A larger one takes two runs, the second of which is mostly tiny.
const (
	MaxSuperPacket = 61000
	MaxSegments    = maxSegments
)

// Batch collects what one WriteBatch sends. Consecutive datagrams of one size to
// one peer become a run: one message that the kernel, or the card, cuts apart again
// (udp(7), UDP_SEGMENT). A Batch belongs to one lane; its memory is used again.
type Batch struct {
	// Singly has Add begin no runs and continue none.
	Singly bool

	// InRuns is how many datagrams of runs were added since the Batch exists.
	InRuns uint64

	messages []message
	iovecs   []unix.Iovec
	space    []byte
}

// message is one datagram or a run.
type message struct {
	to      *peer.Peer
	class   uint8 // of the outer header
	first   int   // its iovecs: the first and behind the last
	end     int
	segment int // bytes in each datagram but the last, which may be shorter
	last    int // bytes in the last datagram
	size    int // bytes in all

	packets, bytes int // what of the pods it carries
}

// Reset empties the batch.
func (b *Batch) Reset() {
	b.messages, b.iovecs, b.space = b.messages[:0], b.iovecs[:0], b.space[:0]
}

// Len returns the number of messages.
func (b *Batch) Len() int { return len(b.messages) }

// Datagrams yields a copy of each datagram and where it goes. It is for what need not be
// fast: WriteBatch reads the pieces where they are.
func (b *Batch) Datagrams() iter.Seq2[*peer.Peer, []byte] {
	return func(yield func(*peer.Peer, []byte) bool) {
		pieces := make([]message, maxSegments)
		for i := range b.messages {
			for _, m := range b.messages[i].cut(pieces, b.iovecs) {
				var datagram []byte
				for _, v := range b.iovecs[m.first:m.end] {
					datagram = append(datagram, unsafe.Slice(v.Base, v.Len)...)
				}
				if !yield(m.to, datagram) {
					return
				}
			}
		}
	}
}

// Space returns n bytes for data to pass to Add. They are valid until Reset.
func (b *Batch) Space(n int) []byte {
	if len(b.space)+n > cap(b.space) {
		// Space that was returned before stays where it is; the iovecs refer to it.
		b.space = make([]byte, 0, 2*(cap(b.space)+n))
	}
	b.space = b.space[:len(b.space)+n]
	return b.space[len(b.space)-n:]
}

// Add appends a datagram to a peer: header and then payload, which may be empty.
// Both must stay as they are until the batch was sent. class is the traffic class of
// the outer IP header (RFC 2474, RFC 3168), and bytes the length of the pod's packet.
func (b *Batch) Add(to *peer.Peer, class uint8, header, payload []byte, bytes int) {
	size := len(header) + len(payload)
	first := len(b.iovecs)
	b.append(header)
	if len(payload) > 0 {
		b.append(payload)
	}
	if n := len(b.messages); n > 0 && !b.Singly {
		if m := &b.messages[n-1]; m.takes(to, class, size) {
			m.end, m.last = len(b.iovecs), size
			m.size += size
			b.InRuns++
			if m.packets == 1 {
				b.InRuns++ // the first one, too
			}
			m.packets++
			m.bytes += bytes
			return
		}
	}
	b.messages = append(b.messages, message{to: to, class: class, first: first, end: len(b.iovecs),
		segment: size, last: size, size: size, packets: 1, bytes: bytes})
}

// takes reports whether a datagram of size bytes may become the last of the run.
func (m *message) takes(to *peer.Peer, class uint8, size int) bool {
	return m.to == to && m.class == class && m.last == m.segment && size <= m.segment && size > 0 &&
		m.packets < maxSegments && m.size+size <= maxMessage
}

func (b *Batch) append(bytes []byte) {
	b.iovecs = append(b.iovecs, unix.Iovec{Base: &bytes[0], Len: uint64(len(bytes))})
}

// cut makes messages of their own of a run's datagrams, in pieces, which has room.
func (m *message) cut(pieces []message, iovecs []unix.Iovec) []message {
	headers := (m.size - m.bytes) / m.packets // the same in each datagram
	next := m.first
	for i := range pieces[:m.packets] {
		size := m.segment
		if i == m.packets-1 {
			size = m.last
		}
		piece := message{to: m.to, class: m.class, first: next, segment: size, last: size, size: size, packets: 1, bytes: size - headers}
		for left := size; left > 0; next++ {
			left -= int(iovecs[next].Len)
		}
		piece.end = next
		pieces[i] = piece
	}
	return pieces[:m.packets]
}
