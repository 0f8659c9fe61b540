package load

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchSize is how many packets one system call moves: a whole number of IMIX
// sequences, near the 64 that routers use.
const batchSize = 60

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// batch is messages that are laid out once. They all share one buffer: no receiver looks
// at what the packets carry.
type batch struct {
	headers [batchSize]mmsghdr
	iovecs  [batchSize]unix.Iovec
	buffer  [2048]byte
}

// newBatch lays out messages with payloads of the given lengths, repeated.
func newBatch(payloads []int) *batch {
	b := new(batch)
	for i := range b.headers {
		b.iovecs[i].Base = &b.buffer[0]
		b.iovecs[i].SetLen(payloads[i%len(payloads)])
		b.headers[i].hdr.Iov = &b.iovecs[i]
		b.headers[i].hdr.SetIovlen(1)
	}
	return b
}

// send sends n messages from number first on, and returns how many were taken.
func (b *batch) send(fd, first, n int) (int, unix.Errno) {
	return b.call(unix.SYS_SENDMMSG, fd, first, n, 0)
}

// receive waits for one message and takes all that are there.
func (b *batch) receive(fd int) (int, unix.Errno) {
	return b.call(unix.SYS_RECVMMSG, fd, 0, batchSize, unix.MSG_WAITFORONE)
}

func (b *batch) call(number uintptr, fd, first, n, flags int) (int, unix.Errno) {
	for {
		done, _, errno := unix.Syscall6(number, uintptr(fd), uintptr(unsafe.Pointer(&b.headers[first])), uintptr(n), uintptr(flags), 0, 0)
		runtime.KeepAlive(b)
		if errno != unix.EINTR {
			return int(done), errno
		}
	}
}
