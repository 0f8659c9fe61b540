package control

import "time"

// Settling says when a Source acts on changes: when it has become quiet, as many come at once
// when a cluster starts, but no later than Patience after the first one. After a State it also
// waits for as long as that one took. So who changes something all the time, which in a
// Registry any node can do, has half of one processor at most, and can't keep the others from
// the rest.
type Settling struct {
	// Quiet is how long nothing must have changed.
	Quiet, Patience time.Duration

	// Settled receives when it is time; nil if nothing has changed since Done.
	Settled <-chan time.Time

	deadline time.Time // by Patience
	rested   time.Time // when as long has passed since the last State as that one took
}

// Disturb takes notice of a change.
func (s *Settling) Disturb() {
	now := time.Now()
	if s.Settled == nil {
		s.deadline = now.Add(s.Patience)
	}
	wait := min(s.Quiet, s.deadline.Sub(now))
	s.Settled = time.After(max(wait, s.rested.Sub(now)))
}

// Done says that the changes until now are acted on.
func (s *Settling) Done() { s.Settled = nil }

// Emit calls what makes and emits a State.
func (s *Settling) Emit(emit func()) {
	began := time.Now()
	emit()
	ended := time.Now()
	s.rested = ended.Add(ended.Sub(began))
}
