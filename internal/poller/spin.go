package poller

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// spinFor is how long a wait spins at most. Waking a processor that sleeps takes 10 to
	// 50 µs where it is a virtual one, and a round trip wakes four lanes one after the other.
	spinFor = 150 * time.Microsecond

	// contended is an offer of the processor that took so long that another thread has
	// had use for it, and not just looked whether there was something for it.
	contended = 300 * time.Microsecond

	// cheap is a system call with which spinning is worth its price. Most machines take 0.1 µs
	// for one. Some virtual ones, where each call switches page tables, take more than 1 µs; there
	// asking again and again delayed the other lanes more than their waking up did
	// (docs/PERFORMANCE.md, Experiments).
	cheap = 500 * time.Nanosecond

	// mostSkipped bounds how many waits don't spin after one that spun in vain.
	mostSkipped = 255

	// shortestPause and longestPause bound how long none spins after one that was in another
	// thread's way.
	shortestPause = 10 * time.Millisecond
	longestPause  = time.Second
)

// Spin asks again and again whether the descriptor can be read, for some time, instead of
// sleeping: where packets follow each other closely, as in a dialogue, and no other
// thread needs the processor. It returns how often it has asked until it could be read; 0 if it
// has not spun, or in vain.
func (p *Poller) Spin() (asked int) {
	if !p.spinning {
		return 0
	}
	began := time.Now()
	if !p.backoff.due(began) {
		return 0
	}
	for now := began; now.Sub(began) < spinFor; {
		asked++
		if n, errno := p.ask(0); errno == 0 && n > 0 {
			p.backoff.succeeded()
			return asked
		}
		_, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) // others' turn
		offered := now
		if now = time.Now(); now.Sub(offered) > contended {
			p.backoff.contended(now)
			return 0
		}
	}
	p.backoff.failed()
	return 0
}

// backoff says which waits spin: the more of them did so in vain, or in others' way, the fewer.
type backoff struct {
	skip    int // waits until the next one that spins
	skipped int // how many it was last, after one in vain; 0 after one that found something

	pause  time.Duration // for how long none spun after one in others' way
	resume time.Time     // when that ends
}

func (b *backoff) due(now time.Time) bool {
	if b.skip > 0 {
		b.skip--
		return false
	}
	return !now.Before(b.resume)
}

func (b *backoff) succeeded() { b.skipped = 0 }

func (b *backoff) failed() {
	b.skipped = min(2*b.skipped+1, mostSkipped)
	b.skip = b.skipped
}

// contended pauses spinning, for twice as long as before if it is soon in the way again.
func (b *backoff) contended(now time.Time) {
	if now.Sub(b.resume) < 10*b.pause {
		b.pause = min(2*b.pause, longestPause)
	} else {
		b.pause = shortestPause
	}
	b.resume = now.Add(b.pause)
}

// callsAreCheap measures, once, what a system call takes: the least of a few batches, since
// other threads may get the processor meanwhile.
var callsAreCheap = sync.OnceValue(func() bool {
	const batches, calls = 8, 64
	least := time.Duration(1 << 62)
	for range batches {
		began := time.Now()
		for range calls {
			_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		}
		least = min(least, time.Since(began))
	}
	return least/calls < cheap
})
