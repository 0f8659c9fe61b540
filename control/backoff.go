package control

import (
	"math/rand/v2"
	"time"
)

// ReconnectPause is about how long a node waits between two attempts to reach a control source
// that is unreachable: short enough for the node to be current within 5 seconds after it is
// reachable again, and in a large cluster long enough for all nodes together to make no more
// than a thousand attempts a second, so that the source has time to start.
func ReconnectPause(nodes int) time.Duration {
	const (
		shortest = time.Second
		longest  = 10 * time.Second
		each     = time.Millisecond
	)
	return min(max(shortest, time.Duration(nodes)*each), longest)
}

// Backoff is how long to wait between attempts at the same. The zero Backoff with bounds is ready
// for use.
type Backoff struct {
	// Shortest and Longest bound the waits, about.
	Shortest, Longest time.Duration

	next time.Duration
}

// Wait returns a time about twice as long as the last one. It is random, so that nodes which
// failed together don't try again together.
func (b *Backoff) Wait() time.Duration {
	b.next = max(b.Shortest, min(b.next, b.Longest))
	wait := b.next/2 + rand.N(b.next)
	b.next *= 2
	return wait
}

// Reset has the next wait be a short one.
func (b *Backoff) Reset() { b.next = 0 }

// Retry says when the same may be tried again; anything else may be tried at once. The zero
// Retry with bounds is ready for use.
type Retry[T comparable] struct {
	Backoff

	// Last is what was tried last.
	Last T

	notBefore time.Time
}

// Tried takes notice of an attempt that has ended.
func (r *Retry[T]) Tried(what T) {
	r.Last, r.notBefore = what, time.Now().Add(r.Wait())
}

// Remaining returns how long this must not be tried yet.
func (r *Retry[T]) Remaining(what T) time.Duration {
	if what != r.Last {
		return 0
	}
	return max(0, time.Until(r.notBefore))
}

// Reset allows the same at once, and has the next wait be a short one.
func (r *Retry[T]) Reset() {
	r.Backoff.Reset()
	r.notBefore = time.Time{}
}
