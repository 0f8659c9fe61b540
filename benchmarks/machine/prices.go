package machine

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Prices are what the machine takes for the things that every forwarder in user space does, in
// nanoseconds. They differ between machines, virtual ones above all, by more than forwarders
// do: figures of two machines are comparable only beside them.
type Prices struct {
	SystemCall float64 `json:"systemCallNs,omitempty"`

	// WakeUp is from a thread's write to the moment when another thread, which was waiting on
	// another processor, has read it.
	WakeUp float64 `json:"wakeUpNs,omitempty"`

	// Copy64KiB is a copy of as many bytes within a program, from memory that is not in the
	// nearest caches. One between the kernel and a program takes longer.
	Copy64KiB float64 `json:"copy64KiBNs,omitempty"`
}

// String is one line about all of them.
func (p Prices) String() string {
	return fmt.Sprintf("a system call takes %s, a wake-up %s, a copy of 64 KiB %s",
		microseconds(p.SystemCall), microseconds(p.WakeUp), microseconds(p.Copy64KiB))
}

func microseconds(ns float64) string {
	digits := 2
	if ns >= 10e3 {
		digits = 0
	}
	return fmt.Sprintf("%.*f µs", digits, ns/1e3)
}

// How often each is done in a round. The rounds of each together take some 50 ms.
const (
	priceRounds = 9
	systemCalls = 5000
	handOvers   = 400
	copies      = 500
)

// MeasurePrices takes less than half a second.
func MeasurePrices() (p Prices, err error) {
	p.SystemCall = medianRound(systemCalls, func() {
		for range systemCalls {
			_, _ = unix.RawSyscallNoError(unix.SYS_GETPPID, 0, 0, 0)
		}
	})
	p.Copy64KiB = priceOfCopy()
	if p.WakeUp, err = priceOfWakeUp(); err != nil {
		return p, fmt.Errorf("measure the price of a wake-up: %w", err)
	}
	return p, nil
}

// medianRound returns how many nanoseconds one of n operations takes, in the round between
// the fastest and the slowest.
func medianRound(n int, round func()) float64 {
	var rounds []time.Duration
	for range priceRounds {
		started := time.Now()
		round()
		rounds = append(rounds, time.Since(started))
	}
	slices.Sort(rounds)
	return float64(rounds[priceRounds/2]) / float64(n)
}

func priceOfCopy() float64 {
	const size, parts = 64 << 10, 256
	from, to := make([]byte, size*parts), make([]byte, size)
	for i := range from { // the kernel gives memory when it is written
		from[i] = byte(i)
	}
	part := 0
	return medianRound(copies, func() {
		for range copies {
			copy(to, from[part*size:][:size])
			part = (part + 1) % parts
		}
	})
}
