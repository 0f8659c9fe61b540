// Package poller waits for a descriptor on the calling thread, without the
// runtime's own poller: the packet that ends the wait is read by the thread that waited.
package poller

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Brief is how long a lane first waits in a raw system call, which the runtime does not know
// of, before it sleeps in an ordinary one.
//
// Between packets an ordinary one is expensive. The runtime's monitor takes the scheduling slot
// away from a goroutine that it has not rescheduled for 10 ms and finds in a system call, and
// after that it looks some thousand times a second whether there is another one (sysmon and
// retake in runtime/proc.go). But a lane without traffic must not stay in a raw one, which
// would have the monitor look 100 times a second for good.
//
// When the runtime wants to stop a goroutine, as to collect garbage, it sends its thread
// a signal. That ends a raw system call too (EINTR; see Yield). With GODEBUG=asyncpreemptoff=1 it
// sends none, and waits.
//
// Brief is longer than a tick of the kernel's (4 ms with HZ=250). So its timer is rarely the next
// one of the processor, for which the hardware would have to be programmed: in a virtual machine
// that takes as long as several system calls.
const Brief = 10 * time.Millisecond

// Yield is for a raw system call that a signal has ended.
func Yield() { runtime.Gosched() }

// ErrWoken says that Wake has ended a wait.
var ErrWoken = errors.New("the wait was ended")

// Poller waits until a descriptor can be read, or until it is woken or closed. One
// goroutine waits at a time.
type Poller struct {
	fds    [2]unix.PollFd // the descriptor; the event of Wake and Close
	event  *os.File       // closed by the runtime when nothing refers to the poller any more
	closed atomic.Bool

	brief time.Duration
	left  unix.Timespec // of ask's timeout; the kernel subtracts from it

	spinning bool // whether to spin at all
	backoff  backoff
}

// New returns a poller for fd, which stays the caller's.
func New(fd int) (*Poller, error) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	p := &Poller{event: os.NewFile(uintptr(event), "eventfd"), brief: Brief, spinning: callsAreCheap()}
	p.fds[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	p.fds[1] = unix.PollFd{Fd: int32(event), Events: unix.POLLIN}
	return p, nil
}

// atOnce is what a wait takes at most that finds something: a system call.
const atOnce = 5 * time.Microsecond

// Wait returns when the descriptor can be read or has an error to report, and whether that
// was not so at once. After Wake it returns ErrWoken once, and after Close os.ErrClosed.
func (p *Poller) Wait() (waited bool, err error) {
	if asked := p.Spin(); asked > 0 {
		return asked > 1, p.readable()
	}
	for {
		n, errno := p.ask(p.brief)
		switch {
		case errno == unix.EINTR:
			Yield()
		case errno != 0:
			return false, fmt.Errorf("ppoll: %w", errno)
		case n == 0:
			return true, p.Sleep()
		default:
			return p.brief-time.Duration(p.left.Nano()) > atOnce, p.readable()
		}
	}
}

// ask waits in a raw system call for up to timeout, and returns how many of fds are ready.
func (p *Poller) ask(timeout time.Duration) (n uintptr, errno unix.Errno) {
	p.left = unix.NsecToTimespec(timeout.Nanoseconds())
	n, _, errno = unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p.fds[0])), 2,
		uintptr(unsafe.Pointer(&p.left)), 0, 0, 0)
	return n, errno
}

// Sleep is Wait for a caller that has already waited for Brief.
func (p *Poller) Sleep() error {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p.fds[0])), 2, 0, 0, 0, 0)
		if errno == 0 {
			return p.readable()
		}
		if !errors.Is(errno, unix.EINTR) {
			return fmt.Errorf("ppoll: %w", errno)
		}
	}
}

func (p *Poller) readable() error {
	if p.fds[1].Revents == 0 {
		return nil
	}
	if p.closed.Load() {
		return os.ErrClosed
	}
	if _, err := p.event.Read(make([]byte, 8)); err != nil { // resets the event
		return fmt.Errorf("reset what wakes the lane: %w", err)
	}
	if p.closed.Load() { // meanwhile: the event that was reset is Close's, too
		return errors.Join(os.ErrClosed, p.Wake())
	}
	return ErrWoken
}

// Wake ends the present wait, or the next one if there is none. The descriptor stays as it is, so
// another process that has it too notices nothing.
func (p *Poller) Wake() error {
	if _, err := p.event.Write([]byte{0: 1, 7: 0}); err != nil { // eventfd(2): any number but 0
		return fmt.Errorf("wake the waiting lane: %w", err)
	}
	return nil
}

// Close ends the present wait, and all later ones.
func (p *Poller) Close() error {
	p.closed.Store(true)
	return p.Wake()
}
