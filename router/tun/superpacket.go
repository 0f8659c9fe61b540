package tun

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"weft/internal/poller"
	"weft/packet"
)

// superpackets is how many frames a Read of the driver superpacket returns at the
// most, each of up to 64 KiB.
const superpackets = 32

// superpacket drives a queue with raw virtio-net frames: super-packets pass whole,
// in and out, with their checksums partial, on a thread that waits by itself.
type superpacket struct {
	file   *os.File
	poller *poller.Poller
	raw    syscall.RawConn
	udp    bool // whether the kernel says that super-packets of UDP pass too
	frames []packet.Frame
	space  [][]byte // of each frame, with room for the virtio-net header before it

	read func(fd uintptr) bool // bound once: a closure per call would be allocated
	n    int
	err  error

	came     int  // frames since the last wait
	oneByOne bool // whether each of the last waits was for one frame

	iovecs []unix.Iovec
	write  func(fd uintptr) bool
	errno  syscall.Errno

	// refusesTCP and refusesUDP are set once the kernel has refused a super-packet of the
	// kind, and taken its segments.
	refusesTCP, refusesUDP atomic.Bool

	joined, piece []packet.Frame // one each, to cut what is refused; made when first needed
}

func prepareSuperpacket() func(fd int) (Queue, error) {
	q := &superpacket{frames: packet.NewFrames(superpackets, packet.MaxSize)}
	for i := range q.frames {
		q.frames[i].Reset()
		q.space = append(q.space, q.frames[i].WithRoom(packet.VirtioRoom, 0)[:packet.VirtioRoom+packet.MaxSize])
	}
	q.read, q.write = q.readFrames, q.writev
	return q.use
}

// use makes q a queue of the descriptor.
func (q *superpacket) use(fd int) (_ Queue, err error) {
	q.file = os.NewFile(uintptr(fd), "/dev/net/tun")
	if q.udp, err = offload(fd); err != nil {
		return nil, errors.Join(err, q.file.Close())
	}
	// Only now, so that the runtime's poller does not learn of it: it would wake a
	// thread for every packet, and no goroutine waits there.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("make the queue non-blocking: %w", err), q.file.Close())
	}
	if q.raw, err = q.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("reach the queue: %w", err), q.file.Close())
	}
	if q.poller, err = poller.New(fd); err != nil {
		return nil, errors.Join(err, q.file.Close())
	}
	return q, nil
}

// offload has the kernel hand over super-packets of TCP, and reports whether it does so
// of UDP too (Linux 6.2; it wants both families named).
func offload(fd int) (udp bool, err error) {
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp|unix.TUN_F_USO4|unix.TUN_F_USO6) == nil {
		return true, nil
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp); err != nil {
		return false, fmt.Errorf("enable super-packets (TUNSETOFFLOAD): %w", err)
	}
	return false, nil
}

func (q *superpacket) Read() ([]packet.Frame, error) {
	q.n, q.err = 0, nil
	if q.raw.Read(q.read) != nil { // it fails only if the file is closed
		return nil, fmt.Errorf("read the TUN device: %w", os.ErrClosed)
	}
	return q.frames[:q.n], q.err
}

// readFrames drains the queue: until it is empty, the frames are full, or a
// super-packet came, which is worth a send of its own at once. While frames come one by one, as
// in a dialogue, it does not look for a second one: it sends the first, and waits.
func (q *superpacket) readFrames(fd uintptr) bool {
	if q.oneByOne && !q.wait() {
		return true
	}
	for q.n < len(q.frames) {
		space := q.space[q.n]
		n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(&space[0])), uintptr(len(space)))
		switch {
		case errno == unix.EAGAIN && q.n > 0:
			return true
		case errno == unix.EAGAIN:
			if q.oneByOne = q.came == 1; !q.wait() {
				return true
			}
			continue
		case errno == unix.EINTR:
			continue
		case errno != 0:
			q.err = os.NewSyscallError("read", errno)
			return true
		case int(n) < packet.VirtioRoom:
			q.err = fmt.Errorf("a frame of %d bytes has no virtio-net header", n)
			return true
		}
		f := &q.frames[q.n]
		f.Reset()
		f.Virtio = packet.ParseVirtioHeader(space)
		f.Fill(int(n) - packet.VirtioRoom)
		q.n++
		q.came++
		if f.Virtio.GSOType != unix.VIRTIO_NET_HDR_GSO_NONE || q.oneByOne {
			return true
		}
	}
	return true
}

// wait reports whether the queue can be read. If it could at once, frames have come together.
func (q *superpacket) wait() bool {
	waited, err := q.poller.Wait()
	q.came, q.oneByOne, q.err = 0, q.oneByOne && waited, err
	return err == nil
}

func (q *superpacket) Write(frames []packet.Frame) (int, error) {
	var refused error
	written := 0
	for i := range frames {
		f := &frames[i]
		if err := q.writeOne(f); err != nil {
			return written, err
		}
		if q.errno == 0 {
			written += f.Packets()
			continue
		}
		refused = os.NewSyscallError("writev", q.errno)
		if f.Rest != nil && (q.errno == unix.EINVAL || q.errno == unix.EOPNOTSUPP) {
			n, err := q.writeSegments(f)
			if written += n; err != nil {
				return written, err
			}
		}
	}
	return written, refused
}

// writeOne hands one frame to the kernel; q.errno says whether it took it.
func (q *superpacket) writeOne(f *packet.Frame) error {
	head := f.WithRoom(packet.VirtioRoom, 0)
	f.Virtio.Put(head)
	q.iovecs = append(q.iovecs[:0], unix.Iovec{Base: &head[0], Len: uint64(len(head))})
	for _, piece := range f.Rest {
		q.iovecs = append(q.iovecs, unix.Iovec{Base: &piece[0], Len: uint64(len(piece))})
	}
	if err := q.raw.Write(q.write); err != nil {
		return fmt.Errorf("write the TUN device: %w", err)
	}
	return nil
}

// writeSegments writes a super-packet that the kernel has refused segment by segment, and
// returns how many it took. If it takes them, it is super-packets that it refuses.
func (q *superpacket) writeSegments(f *packet.Frame) (written int, err error) {
	if q.joined == nil {
		q.joined, q.piece = packet.NewFrames(1, packet.MaxSize), packet.NewFrames(1, packet.MaxSize)
	}
	joined, piece := &q.joined[0], &q.piece[0]
	space := joined.Reset()
	n := copy(space, f.Packet())
	for _, part := range f.Rest {
		n += copy(space[n:], part)
	}
	joined.Fill(n)
	joined.Virtio = f.Virtio
	segments, ok := joined.Cut(false)
	if !ok { // the packet was not made by joining
		return 0, nil
	}
	for i := range segments.Count {
		b := piece.Reset()
		segments.Header(b[:segments.HeaderLen], i)
		piece.Fill(segments.HeaderLen + copy(b[segments.HeaderLen:], segments.Payload(i)))
		piece.Virtio, _ = packet.PartialChecksum(piece.Packet())
		if err := q.writeOne(piece); err != nil {
			return written, err
		}
		if q.errno == 0 {
			written++
		}
	}
	if written > 0 {
		kind := &q.refusesTCP
		if f.Virtio.GSOType == unix.VIRTIO_NET_HDR_GSO_UDP_L4 {
			kind = &q.refusesUDP
		}
		kind.Store(true)
	}
	return written, nil
}

// writev does not wait: what the kernel takes from a TUN device it takes at once.
func (q *superpacket) writev(fd uintptr) bool {
	for {
		_, _, q.errno = unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&q.iovecs[0])), uintptr(len(q.iovecs)))
		if q.errno != unix.EINTR {
			return true
		}
	}
}

func (q *superpacket) Takes() (tcp, udp bool) {
	return !q.refusesTCP.Load(), q.udp && !q.refusesUDP.Load()
}

func (q *superpacket) Wake() error { return q.poller.Wake() }

func (q *superpacket) File() *os.File { return q.file }

func (q *superpacket) Close() error { return errors.Join(q.poller.Close(), q.file.Close()) }
