// Package poller waits for a descriptor on the calling thread, without the
// runtime's own poller: a lane's goroutine keeps its thread, and the packet that
// ends the wait is read by the thread that waited.
package poller

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// briefly is how long a wait blocks without telling the runtime. That saves the
// handing back and forth of a scheduling slot, which is most of a short wait; but a
// garbage collection waits for this thread as long.
const briefly = 500_000 // ns

// Poller waits until a descriptor can be read, or until it is closed. One
// goroutine waits at a time.
type Poller struct {
	fds   [2]unix.PollFd // the descriptor; the event that wakes for Close
	event *os.File       // closed by the runtime when nothing refers to the poller any more
	busy  bool           // the last wait ended with something to read
	ours  bool           // the waiting goroutine has its thread for itself

	spinning spinning
}

// New returns a poller for fd, which stays the caller's.
func New(fd int) (*Poller, error) {
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an eventfd: %w", err)
	}
	p := &Poller{event: os.NewFile(uintptr(event), "eventfd")}
	p.fds[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	p.fds[1] = unix.PollFd{Fd: int32(event), Events: unix.POLLIN}
	return p, nil
}

// Wait returns when the descriptor can be read or has an error to report. After Close
// it returns os.ErrClosed. The goroutine that waits keeps its thread from then on.
func (p *Poller) Wait() error {
	if !p.ours {
		runtime.LockOSThread()
		p.ours = true
	}
	began := time.Now()
	defer func() { p.spinning.learn(time.Since(began)) }()
	if p.busy {
		p.busy = false
		if p.spinning.promises(began) && p.spin(began) || p.poll(&unix.Timespec{Nsec: briefly}) {
			return p.readable()
		}
	}
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

// spin asks again and again instead of sleeping, and reports whether there was
// something. Between the questions it offers the processor to others.
func (p *Poller) spin(began time.Time) bool {
	var atOnce unix.Timespec
	for asked := began; asked.Sub(began) < spinFor; {
		if p.poll(&atOnce) {
			return true
		}
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		offered := asked
		asked = time.Now()
		if asked.Sub(offered) > contended {
			p.spinning.leaveOff(asked)
			return false
		}
	}
	return false
}

// poll waits without telling the runtime, and reports whether there is something.
func (p *Poller) poll(timeout *unix.Timespec) bool {
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p.fds[0])), 2,
		uintptr(unsafe.Pointer(timeout)), 0, 0, 0)
	return errno == 0 && n > 0
}

func (p *Poller) readable() error {
	if p.fds[1].Revents != 0 {
		return os.ErrClosed
	}
	p.busy = true
	return nil
}

// Close ends the present wait, and all later ones.
func (p *Poller) Close() error {
	if _, err := p.event.Write([]byte{0: 1, 7: 0}); err != nil { // eventfd(2): any number but 0
		return fmt.Errorf("wake the waiting lane: %w", err)
	}
	return nil
}
