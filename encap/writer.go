package encap

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sent is the outcome of a WriteBatch.
type Sent struct {
	// Packets and Bytes are the pods' packets that went out.
	Packets, Bytes int

	// Refused are the packets that the kernel refused, and Err is why it refused the
	// last of them: an Errno of sendmsg(2).
	Refused int
	Err     syscall.Errno
}

// writer is the sending half of a Conn: sendmmsg(2) without waiting.
type writer struct {
	raw     syscall.RawConn
	source  *atomic.Pointer[source] // where datagrams leave from
	headers []mmsghdr
	names   []unix.RawSockaddrInet6 // also holds a RawSockaddrInet4, which is smaller
	control []sendControl

	// whole is set where no runs are wanted, and once the kernel has refused one: from then
	// on every datagram is a message of its own.
	whole  atomic.Bool
	pieces []message // of a run, when it is sent so

	send  func(fd uintptr) bool // bound once: a closure per call would be allocated
	count int                   // how many of headers send sends
	n     int                   // how many it sent
	errno syscall.Errno         // why not the next one
}

// sendControl has room for the control messages of one message: UDP_SEGMENT (udp(7)), a
// __u16; IP_TOS or IPV6_TCLASS (ip(7), ipv6(7)), an int; and the source.
type sendControl struct {
	messages [2]controlMessage
	source   [maxSource]byte
}

// controlMessage is one with at most 8 bytes of data (cmsg(3)).
type controlMessage struct {
	header unix.Cmsghdr
	data   [8]byte
}

const controlMessageLen = int(unsafe.Sizeof(controlMessage{}))

func (c *controlMessage) init(level, kind int32, size int) {
	c.header.Level, c.header.Type = level, kind
	c.header.SetLen(unix.CmsgLen(size))
}

// setSegment makes it UDP_SEGMENT.
func (c *controlMessage) setSegment(bytes int) {
	c.init(unix.SOL_UDP, unix.UDP_SEGMENT, 2)
	binary.NativeEndian.PutUint16(c.data[:], uint16(bytes))
}

// segmentControl returns UDP_SEGMENT alone.
func segmentControl(bytes int) []byte {
	c := new(controlMessage)
	c.setSegment(bytes)
	return unsafe.Slice((*byte)(unsafe.Pointer(c)), controlMessageLen)
}

// prepare makes all that the writer needs but its socket.
func (w *writer) prepare() {
	w.headers = make([]mmsghdr, batchSize)
	w.names = make([]unix.RawSockaddrInet6, batchSize)
	w.control = make([]sendControl, batchSize)
	w.pieces = make([]message, maxSegments)
	for i := range w.headers {
		w.headers[i].hdr.Name = (*byte)(unsafe.Pointer(&w.names[i]))
	}
	w.send = w.sendmmsg
}

func (w *writer) init(socket *os.File, from *atomic.Pointer[source]) (err error) {
	w.source = from
	if w.raw, err = socket.SyscallConn(); err != nil {
		return fmt.Errorf("reach the UDP socket: %w", err)
	}
	return nil
}

// write sends messages in order, and goes on behind one that the kernel refuses.
func (w *writer) write(messages []message, iovecs []unix.Iovec, sent *Sent) {
	for len(messages) > 0 {
		if m := &messages[0]; m.packets > 1 && w.whole.Load() {
			w.write(m.cut(w.pieces, iovecs), iovecs, sent)
			messages = messages[1:]
			continue
		}
		w.count = min(len(messages), batchSize)
		from := w.source.Load()
		for i := range w.count {
			w.describe(i, &messages[i], iovecs, from)
		}
		if err := w.raw.Write(w.send); err != nil { // the socket is closed
			w.n, w.errno = 0, unix.EBADF
		}
		for i := range messages[:w.n] {
			sent.Packets += messages[i].packets
			sent.Bytes += messages[i].bytes
		}
		messages = messages[w.n:]
		if w.errno == 0 {
			continue
		}
		// sendmmsg(2) reports the error of the first message that it did not send.
		if m, errno := &messages[0], w.errno; m.packets > 1 && (refusesRuns(errno) || errno == unix.EMSGSIZE) {
			refused := sent.Refused
			w.write(m.cut(w.pieces, iovecs), iovecs, sent)
			// In older kernels EINVAL also says that datagrams are too big for the path;
			// then they are refused one by one as well, and runs are not to blame.
			if refusesRuns(errno) && sent.Refused == refused {
				w.whole.Store(true)
			}
			messages = messages[1:]
			continue
		}
		sent.Refused += messages[0].packets
		sent.Err = w.errno
		messages = messages[1:]
	}
}

// refusesRuns reports whether the kernel refuses UDP_SEGMENT by this error: the card has no
// checksum offload, or the kernel is too old (udp_send_skb in net/ipv4/udp.c).
func refusesRuns(errno syscall.Errno) bool { return errno == unix.EIO || errno == unix.EINVAL }

// describe makes m the i-th message of the next system call.
func (w *writer) describe(i int, m *message, iovecs []unix.Iovec, from *source) {
	h := &w.headers[i].hdr
	h.Namelen = putSockaddr(&w.names[i], m.to.Endpoint)
	h.Iov = &iovecs[m.first]
	h.SetIovlen(m.end - m.first)
	// One behind the other, those that the message needs.
	c, n, size := &w.control[i], 0, 0
	ipv4 := m.to.Endpoint.Addr().Is4()
	if m.packets > 1 {
		c.messages[n].setSegment(m.segment)
		n, size = n+1, size+controlMessageLen
	}
	if m.class != 0 { // 0 is the socket's
		if ipv4 {
			c.messages[n].init(unix.IPPROTO_IP, unix.IP_TOS, 4)
		} else {
			c.messages[n].init(unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 4)
		}
		binary.NativeEndian.PutUint32(c.messages[n].data[:], uint32(m.class))
		size += controlMessageLen
	}
	if from != nil && from.addr.Is4() == ipv4 {
		room := unsafe.Slice((*byte)(unsafe.Pointer(c)), unsafe.Sizeof(*c))
		size += copy(room[size:], from.control)
	}
	h.Control = nil
	if size > 0 {
		h.Control = (*byte)(unsafe.Pointer(c))
	}
	h.SetControllen(size)
}

func (w *writer) sendmmsg(fd uintptr) bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd,
		uintptr(unsafe.Pointer(&w.headers[0])), uintptr(w.count), unix.MSG_DONTWAIT, 0, 0)
	w.n, w.errno = int(n), errno
	if errno != 0 {
		w.n = 0
	}
	return true
}
