package metrics

import (
	"sync"

	"golang.org/x/time/rate"
)

// Any local user may ask as often as it likes. What grows with the number of peers, some 10 ms for 5,000, is
// made anew so many times a second, and so many times at once; in between, answers repeat the last one.
const (
	freshRate  = 10
	freshBurst = 50
)

// bounded is a result that is made anew only so often. Its method may be called from several goroutines.
type bounded[T any] struct {
	renew func() T

	mu    sync.Mutex // guards what follows
	limit *rate.Limiter
	last  T
}

func newBounded[T any](renew func() T) *bounded[T] {
	return &bounded[T]{renew: renew, limit: rate.NewLimiter(freshRate, freshBurst)}
}

func (b *bounded[T]) get() T {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.limit.Allow() {
		b.mu.Unlock()
		made := b.renew()
		b.mu.Lock()
		b.last = made
	}
	return b.last
}
