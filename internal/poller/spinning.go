package poller

import "time"

const (
	// spinFor is how long a wait spins at most. Waking a processor that sleeps takes some
	// 50 µs where it is a virtual one, and a round trip wakes four lanes one after the other.
	spinFor = 150 * time.Microsecond

	// contended is an offer of the processor that took so long that another thread has
	// had use for it, and not just looked whether there was something for it.
	contended = 300 * time.Microsecond

	// shortestPause and longestPause bound how long spinning is left off after that.
	shortestPause = 10 * time.Millisecond
	longestPause  = time.Second

	// trust is how many more of the last waits must have been short than twice those
	// that were long, for the next to be expected short.
	trust, fullTrust = 8, 16
)

// spinning decides whether a wait spins before it sleeps: where packets follow each other
// closely, as in a dialogue, and no other thread needs the processor. An idle machine
// sleeps, and a busy one works.
type spinning struct {
	short  int           // short waits on balance, 0 to fullTrust
	pause  time.Duration // how long spinning was left off when it was in others' way
	resume time.Time     // when it may be tried again
}

// promises reports whether spinning is worth a try.
func (s *spinning) promises(now time.Time) bool { return s.short >= trust && !now.Before(s.resume) }

// learn judges by how long a wait took whether the next will be short.
func (s *spinning) learn(took time.Duration) {
	if took < spinFor {
		s.short = min(s.short+1, fullTrust)
	} else {
		s.short = max(s.short-2, 0)
	}
}

// leaveOff pauses spinning, for twice as long as before if it is soon in the way again.
func (s *spinning) leaveOff(now time.Time) {
	if now.Sub(s.resume) < 10*s.pause {
		s.pause = min(2*s.pause, longestPause)
	} else {
		s.pause = shortestPause
	}
	s.resume = now.Add(s.pause)
}
