// Package packet is one packet in memory: the frame that carries it through a
// lane and the few header fields that forwarding reads. It knows no sockets and
// no devices.
package packet

// Headroom is the number of bytes that every frame keeps free before its packet,
// so that an encapsulation header or a virtio-net header is written in front of
// it without moving it. It holds the largest pair of both, rounded up to a cache line.
const Headroom = 64

// MaxSize is the size in bytes of the largest packet that a TUN device or a UDP
// socket hands over (RFC 791 §3.1, total length).
const MaxSize = 65535

// Frame is one packet in a buffer with room before it. Push, Pull and Trim move
// its edges as skb_push, skb_pull and skb_trim do in the kernel: no byte is copied.
type Frame struct {
	// Virtio is what is left to do before the packet is complete.
	Virtio VirtioHeader

	buf        []byte
	start, end int

	// Rest are further pieces of the packet behind Packet: of a super-packet that was
	// joined from segments, the payloads where they were received.
	Rest [][]byte
}

// Packets returns how many packets f stands for: of a super-packet that was joined from
// segments, those.
func (f *Frame) Packets() int { return 1 + len(f.Rest) }

// NewFrames returns n empty frames for packets of up to size bytes.
func NewFrames(n, size int) []Frame {
	frames := make([]Frame, n)
	for i := range frames {
		frames[i] = Frame{buf: make([]byte, Headroom+size), start: Headroom, end: Headroom}
	}
	return frames
}

// Reset empties the frame and returns the bytes that a packet may be read into.
func (f *Frame) Reset() []byte {
	f.Virtio, f.Rest = VirtioHeader{}, nil
	f.start, f.end = Headroom, Headroom
	return f.buf[Headroom:]
}

// Fill makes the first n bytes of what Reset returned the packet.
func (f *Frame) Fill(n int) { f.end = f.start + n }

// View returns a frame over the bytes from start to end of what Reset returned. It
// shares the buffer, and what is before and behind it belongs to others.
func (f *Frame) View(start, end int) Frame {
	return Frame{buf: f.buf[: Headroom+end : Headroom+end], start: Headroom + start, end: Headroom + end}
}

// Packet returns the bytes between the frame's edges. Its capacity reaches to the
// end of the buffer.
func (f *Frame) Packet() []byte { return f.buf[f.start:f.end] }

// Len returns the number of bytes between the frame's edges.
func (f *Frame) Len() int { return f.end - f.start }

// Push moves the front edge n bytes forward into the headroom and returns those
// bytes, which hold garbage. n must be at most the headroom left.
func (f *Frame) Push(n int) []byte {
	f.start -= n
	return f.buf[f.start : f.start+n]
}

// Pull moves the front edge n bytes back. n must be at most Len.
func (f *Frame) Pull(n int) { f.start += n }

// Trim cuts what is behind the first n bytes off. n must be at most Len.
func (f *Frame) Trim(n int) { f.end = f.start + n }

// WithRoom returns the packet with bytes before and behind it that belong to the frame,
// or nil if there are not so many behind it. before must be at most the headroom left.
func (f *Frame) WithRoom(before, behind int) []byte {
	if f.end+behind > len(f.buf) {
		return nil
	}
	return f.buf[f.start-before : f.end+behind]
}

// Clone returns a copy that shares nothing with f, with bytes of room behind the packet.
// f has no Rest.
func (f *Frame) Clone(behind int) Frame {
	c := NewFrames(1, f.Len()+behind)[0]
	c.Fill(copy(c.Reset(), f.Packet()))
	c.Virtio = f.Virtio
	return c
}
