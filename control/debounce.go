package control

import "time"

// Debounce says when a Source acts on changes: once nothing has changed for Interval, since
// many changes come at once when a cluster starts, but no later than Longest after the first
// one. After a State it also waits for as long as that one took. So a node that changes its
// entry all the time, which any node of a Registry can do, takes half of one processor at most,
// and does not keep a Source from its other work.
type Debounce struct {
	// Interval is how long nothing must have changed, and Longest how long changes wait at
	// most.
	Interval, Longest time.Duration

	// Due receives when it is time to act; nil if nothing has changed since Done.
	Due <-chan time.Time

	deadline time.Time // by Longest
	free     time.Time // when as long has passed since the last State as that one took
}

// Disturb takes notice of a change.
func (d *Debounce) Disturb() {
	now := time.Now()
	if d.Due == nil {
		d.deadline = now.Add(d.Longest)
	}
	wait := min(d.Interval, d.deadline.Sub(now))
	d.Due = time.After(max(wait, d.free.Sub(now)))
}

// Done says that the changes until now are acted on.
func (d *Debounce) Done() { d.Due = nil }

// paced calls emit, which makes and emits a State.
func (d *Debounce) paced(emit func()) {
	began := time.Now()
	emit()
	ended := time.Now()
	d.free = ended.Add(ended.Sub(began))
}
