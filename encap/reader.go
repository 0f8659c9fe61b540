package encap

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"weft/internal/poller"
	"weft/packet"
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// receiveMessages is how many messages one recvmmsg(2) takes, each of 64 KiB: what
// GRO has joined of one flow, or a single datagram.
const receiveMessages = 16

// reader is the receiving half of a Conn: recvmmsg(2) into buffers that are laid out
// once, on a thread that waits by itself.
type reader struct {
	raw      syscall.RawConn
	poller   *poller.Poller
	headers  []mmsghdr
	iovecs   []unix.Iovec
	names    []unix.RawSockaddrInet6 // also holds a RawSockaddrInet4, which is smaller
	control  [][controlSpace]byte
	buffers  []packet.Frame
	received []Received

	receive func(fd uintptr) bool // bound once: a closure per call would be allocated
	n       int
	err     error

	// joined counts datagrams that GRO had joined with others.
	joined atomic.Uint64
}

// prepare makes all that the reader needs but its socket.
func (r *reader) prepare() {
	r.headers = make([]mmsghdr, receiveMessages)
	r.iovecs = make([]unix.Iovec, receiveMessages)
	r.names = make([]unix.RawSockaddrInet6, receiveMessages)
	r.control = make([][controlSpace]byte, receiveMessages)
	r.buffers = packet.NewFrames(receiveMessages, packet.MaxSize)
	r.received = make([]Received, 0, receiveMessages*maxSegments)
	for i := range r.headers {
		space := r.buffers[i].Reset()
		r.iovecs[i].Base = &space[0]
		r.iovecs[i].SetLen(len(space))
		r.headers[i].hdr.Iov = &r.iovecs[i]
		r.headers[i].hdr.SetIovlen(1)
		r.headers[i].hdr.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		r.headers[i].hdr.Control = (*byte)(unsafe.Pointer(&r.control[i]))
	}
	r.receive = r.recvmmsg
}

func (r *reader) init(socket *os.File, p *poller.Poller) (err error) {
	r.poller = p
	if r.raw, err = socket.SyscallConn(); err != nil {
		return fmt.Errorf("reach the UDP socket: %w", err)
	}
	return nil
}

func (r *reader) read() ([]Received, error) {
	for i := range r.headers { // the kernel overwrites them
		r.headers[i].hdr.Namelen = unix.SizeofSockaddrInet6
		r.headers[i].hdr.SetControllen(controlSpace)
	}
	if r.raw.Read(r.receive) != nil { // it fails only if the file is closed
		return nil, fmt.Errorf("read datagrams: %w", os.ErrClosed)
	}
	if r.err != nil {
		return nil, fmt.Errorf("read datagrams: %w", r.err)
	}
	r.received = r.received[:0]
	for i := range r.n {
		r.split(i)
	}
	return r.received, nil
}

// split makes a Received of each datagram in the i-th message.
func (r *reader) split(i int) {
	size := int(r.headers[i].len)
	segment, class := parseControl(r.control[i][:r.headers[i].hdr.Controllen])
	if segment <= 0 || segment >= size {
		segment = size
	} else {
		r.joined.Add(uint64((size + segment - 1) / segment))
	}
	from := addrPort(&r.names[i])
	if segment == size { // alone in its buffer, with all the room behind it
		whole := r.buffers[i]
		whole.Reset()
		whole.Fill(size)
		r.received = append(r.received, Received{Frame: whole, From: from, Class: class})
		return
	}
	for start := 0; ; start += segment {
		end := min(start+segment, size)
		r.received = append(r.received, Received{Frame: r.buffers[i].View(start, end), From: from, Class: class})
		if end == size {
			return
		}
	}
}

// controlSpace has room for the control messages of one message: UDP_GRO, and the
// traffic class.
const controlSpace = 2 * controlMessageLen

// parseControl reads the control messages that the kernel wrote: into how large
// datagrams a message is to be cut, or 0, and the traffic class of all of them.
func parseControl(b []byte) (segment int, class uint8) {
	for len(b) > unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		size := int(h.Len)
		if size <= unix.SizeofCmsghdr || size > len(b) {
			break
		}
		data := b[unix.SizeofCmsghdr:size]
		switch {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) == 4:
			segment = int(int32(binary.NativeEndian.Uint32(data)))
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TOS: // one byte
			class = data[0]
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_TCLASS && len(data) == 4:
			class = uint8(binary.NativeEndian.Uint32(data))
		}
		b = b[min(len(b), unix.CmsgSpace(len(data))):]
	}
	return segment, class
}

// recvmmsg waits in the same system call as it receives, for as long as a read of the socket
// may take (SO_RCVTIMEO), and then sleeps. Before that it may spin.
func (r *reader) recvmmsg(fd uintptr) bool {
	r.poller.Spin()
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd,
			uintptr(unsafe.Pointer(&r.headers[0])), uintptr(len(r.headers)), unix.MSG_WAITFORONE, 0, 0)
		switch errno {
		case 0:
			r.n, r.err = int(n), nil
			return true
		case unix.EAGAIN:
			if r.err = r.poller.Sleep(); r.err != nil {
				return true
			}
		case unix.EINTR:
			poller.Yield()
		default:
			r.err = os.NewSyscallError("recvmmsg", errno)
			return true
		}
	}
}

// putSockaddr writes an address as the kernel wants it, and returns its length.
func putSockaddr(name *unix.RawSockaddrInet6, addr netip.AddrPort) uint32 {
	if addr.Addr().Is4() {
		name4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		*name4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: bigEndian(addr.Port()), Addr: addr.Addr().As4()}
		return unix.SizeofSockaddrInet4
	}
	*name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: bigEndian(addr.Port()), Addr: addr.Addr().As16()}
	return unix.SizeofSockaddrInet6
}

// addrPort converts what the kernel wrote. An unknown family gives the zero
// AddrPort, which is no peer's.
func addrPort(name *unix.RawSockaddrInet6) netip.AddrPort {
	switch name.Family {
	case unix.AF_INET:
		name4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(name4.Addr), bigEndian(name4.Port))
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(name.Addr).Unmap(), bigEndian(name.Port))
	}
	return netip.AddrPort{}
}

// bigEndian turns a port as it stands in a sockaddr into a number, and back.
func bigEndian(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}
