package encap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"weft/router/packet"
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// reader is the receiving half of a Conn: recvmmsg(2) into buffers that are laid
// out once. It stands where ipv4.PacketConn.ReadBatch would, which allocates a
// net.UDPAddr for every datagram.
type reader struct {
	raw      syscall.RawConn
	received []Received
	headers  []mmsghdr
	iovecs   []unix.Iovec
	names    []unix.RawSockaddrInet6 // also holds a RawSockaddrInet4, which is smaller

	receive func(fd uintptr) bool // bound once: a closure per call would be allocated
	n       int
	errno   syscall.Errno
}

func (r *reader) init(raw syscall.RawConn) {
	r.raw = raw
	r.received = make([]Received, batchSize)
	r.headers = make([]mmsghdr, batchSize)
	r.iovecs = make([]unix.Iovec, batchSize)
	r.names = make([]unix.RawSockaddrInet6, batchSize)
	frames := packet.NewFrames(batchSize, packet.MaxSize)
	for i := range r.headers {
		r.received[i].Frame = frames[i]
		space := r.received[i].Reset()
		r.iovecs[i].Base = &space[0]
		r.iovecs[i].SetLen(len(space))
		r.headers[i].hdr.Iov = &r.iovecs[i]
		r.headers[i].hdr.SetIovlen(1)
		r.headers[i].hdr.Name = (*byte)(unsafe.Pointer(&r.names[i]))
	}
	r.receive = r.recvmmsg
}

func (r *reader) read() ([]Received, error) {
	for i := range r.headers {
		r.headers[i].hdr.Namelen = unix.SizeofSockaddrInet6 // the kernel overwrites it
	}
	if err := r.raw.Read(r.receive); err != nil {
		return nil, fmt.Errorf("wait for datagrams: %w", err)
	}
	if r.errno != 0 {
		return nil, fmt.Errorf("recvmmsg: %w", r.errno)
	}
	for i := range r.n {
		r.received[i].Reset()
		r.received[i].Fill(int(r.headers[i].len))
		r.received[i].From = addrPort(&r.names[i])
	}
	return r.received[:r.n], nil
}

// recvmmsg reports false while there is nothing to read, so that the runtime waits.
func (r *reader) recvmmsg(fd uintptr) bool {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd,
			uintptr(unsafe.Pointer(&r.headers[0])), uintptr(len(r.headers)), unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		r.n, r.errno = int(n), errno
		return !errors.Is(errno, unix.EAGAIN)
	}
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

// bigEndian turns a port as it stands in a sockaddr into a number.
func bigEndian(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}
