package poller

import (
	"errors"
	"os"
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
	for range 100 { // some of the waits spin
		go func() { _, _ = writer.Write([]byte{1}) }()
		if err := p.Wait(); err != nil {
			t.Fatal(err)
		}
		if n, err := unix.Read(reader, make([]byte, 1)); n != 1 || err != nil {
			t.Fatalf("Wait ends, and read gives %d, %v", n, err)
		}
	}
	time.AfterFunc(10*time.Millisecond, func() { p.Close() })
	for range 2 {
		if err := p.Wait(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Wait = %v, want os.ErrClosed", err)
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
	var before time.Duration
	began := time.Now()
	for i := range n {
		if err := p.Wait(); err != nil {
			t.Fatal(err)
		}
		if i == 0 { // the thread is the goroutine's own only now
			before, began = used(), time.Now()
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

func TestSpinningIsExpectedOfShortWaitsOnly(t *testing.T) {
	var s spinning
	now := time.Now()
	for range trust {
		if s.promises(now) {
			t.Error("spins before it knows how long waits take")
		}
		s.learn(spinFor / 2)
	}
	if !s.promises(now) {
		t.Error("does not spin though all waits are short")
	}
	for range fullTrust {
		s.learn(2 * spinFor)
		s.learn(spinFor / 2)
	}
	if s.promises(now) {
		t.Error("spins though every other wait is long")
	}
}

func TestSpinningPausesLongerEachTime(t *testing.T) {
	s := spinning{short: fullTrust}
	now := time.Now()
	for _, want := range []time.Duration{10, 20, 40, 80, 160, 320, 640, 1000, 1000} {
		s.leaveOff(now)
		if s.promises(now.Add(want*time.Millisecond - 1)) {
			t.Errorf("spins again within a pause of %d ms", want)
		}
		if now = now.Add(want * time.Millisecond); !s.promises(now) {
			t.Errorf("does not spin after a pause of %d ms", want)
		}
	}
	now = now.Add(time.Minute)
	s.leaveOff(now)
	if !s.promises(now.Add(shortestPause)) {
		t.Error("a long peace is not rewarded with a short pause")
	}
}
