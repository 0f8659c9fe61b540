package poller

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newPipe returns a poller for the reading end of a pipe, and both ends.
func newPipe(t *testing.T) (p *Poller, reader int, writer *os.File) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r, w := os.NewFile(uintptr(fds[0]), "reader"), os.NewFile(uintptr(fds[1]), "writer")
	t.Cleanup(func() { r.Close(); w.Close() })
	p, err := New(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	return p, fds[0], w
}

func TestWaitEndsWithWhatCanBeReadAndWithClose(t *testing.T) {
	p, reader, writer := newPipe(t)
	for range 100 {
		go func() { _, _ = writer.Write([]byte{1}) }()
		if _, err := p.Wait(); err != nil {
			t.Fatal(err)
		}
		if n, err := unix.Read(reader, make([]byte, 1)); n != 1 || err != nil {
			t.Fatalf("Wait ends, and read gives %d, %v", n, err)
		}
	}
	time.AfterFunc(10*time.Millisecond, func() { p.Close() })
	for range 2 {
		if _, err := p.Wait(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Wait = %v, want os.ErrClosed", err)
		}
	}
}

// A wait that is under way and one that begins later end once each; what came meanwhile is still
// there.
func TestWakeEndsOneWait(t *testing.T) {
	p, _, writer := newPipe(t)
	time.AfterFunc(10*time.Millisecond, func() { _ = p.Wake() })
	for _, when := range []string{"during", "before"} {
		if _, err := p.Wait(); !errors.Is(err, ErrWoken) {
			t.Errorf("Wait = %v after Wake %s it, want ErrWoken", err, when)
		}
		if _, err := writer.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Wait(); err != nil {
			t.Errorf("the next Wait = %v", err)
		}
		if err := p.Wake(); err != nil {
			t.Fatal(err)
		}
	}
	p.Close()
	for range 2 {
		if _, err := p.Wait(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Wait = %v after Close, want os.ErrClosed", err)
		}
	}
}

// wait waits for bytes that come at an interval, and returns how much of the time the
// waiting thread used a processor.
func wait(t *testing.T, interval time.Duration, n int) (share float64) {
	t.Helper()
	p, reader, writer := newPipe(t)
	go func() {
		for range n {
			time.Sleep(interval)
			_, _ = writer.Write([]byte{1})
		}
	}()
	used := func() time.Duration {
		var usage unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_THREAD, &usage); err != nil {
			t.Fatal(err)
		}
		return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, began := used(), time.Now()
	for range n {
		if _, err := p.Wait(); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Read(reader, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	return float64(used()-before) / float64(time.Since(began))
}

func TestALaneThatWaitsLongSleeps(t *testing.T) {
	if share := wait(t, 2*time.Millisecond, 200); share > 0.2 {
		t.Errorf("waiting for a packet every 2 ms takes %.0f%% of a processor", 100*share)
	}
}

// A collection of garbage would wait for as long as a lane's raw system call does.
func TestTheRuntimeStopsAWaitingLane(t *testing.T) {
	p, _, _ := newPipe(t)
	p.brief = 24 * time.Hour
	waiting, ended := make(chan int, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		waiting <- unix.Gettid()
		_, err := p.Wait()
		ended <- err
	}()
	thread := <-waiting
	for entered := ""; !strings.HasPrefix(entered, fmt.Sprint(unix.SYS_PPOLL, " ")); {
		state, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/syscall", thread))
		if err != nil {
			t.Fatal(err)
		}
		entered = string(state)
		time.Sleep(time.Millisecond)
	}
	runtime.GC()
	p.Close()
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("Wait = %v, want os.ErrClosed", err)
	}
}
