package machine

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// priceOfWakeUp has two threads wake each other in turn. They are on different processors, if
// there are two.
func priceOfWakeUp() (float64, error) {
	processors, err := farProcessors()
	if err != nil {
		return 0, err
	}
	var bells [2]bell
	for i := range bells {
		if bells[i], err = newBell(); err != nil {
			return 0, err
		}
		defer bells[i].close()
	}
	// While a thread waits for a bell, Go's runtime takes it for busy: the runtime needs a
	// processor for each, and one for the rest of the program.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(max(3, runtime.GOMAXPROCS(0))))

	var price float64
	err = onThreads(processors,
		func() {
			price = medianRound(handOvers, func() {
				for range handOvers / 2 {
					bells[1].ring()
					bells[0].wait()
				}
			})
		},
		func() {
			for range priceRounds * handOvers / 2 {
				bells[1].wait()
				bells[0].ring()
			}
		})
	return price, err
}

// farProcessors are the first and the last that this process may use.
func farProcessors() (ends [2]int, err error) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return ends, fmt.Errorf("read the affinity: %w", err)
	}
	ends[0] = -1
	for i := range len(allowed) * int(unsafe.Sizeof(allowed[0])) * 8 {
		if !allowed.IsSet(i) {
			continue
		}
		if ends[0] < 0 {
			ends[0] = i
		}
		ends[1] = i
	}
	return ends, nil
}

// onThreads runs two functions at the same time, each on a thread of its own, pinned to a
// processor. The threads end with them: nothing else must run on a pinned one.
func onThreads(processors [2]int, functions ...func()) error {
	ready, start, done := make(chan error), make(chan bool), make(chan struct{})
	for i, f := range functions {
		go func() {
			runtime.LockOSThread() // and never unlocked, so that the thread ends
			var only unix.CPUSet
			only.Set(processors[i])
			ready <- unix.SchedSetaffinity(0, &only)
			if <-start {
				f()
			}
			done <- struct{}{}
		}()
	}
	var errs []error
	for range functions {
		errs = append(errs, <-ready)
	}
	err := errors.Join(errs...)
	for range functions {
		start <- err == nil
	}
	for range functions {
		<-done
	}
	return err
}

// bell is an eventfd that one thread waits for and another rings. Its calls go past Go's
// runtime, which would do work of its own around them.
type bell int

func newBell() (bell, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("make an eventfd: %w", err)
	}
	return bell(fd), nil
}

func (b bell) ring() {
	one := uint64(1)
	_, _, _ = unix.RawSyscall(unix.SYS_WRITE, uintptr(b), uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
}

func (b bell) wait() {
	var count uint64
	for {
		_, _, err := unix.RawSyscall(unix.SYS_READ, uintptr(b), uintptr(unsafe.Pointer(&count)), unsafe.Sizeof(count))
		if err != unix.EINTR {
			return
		}
	}
}

func (b bell) close() { _ = unix.Close(int(b)) }
