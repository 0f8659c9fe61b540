package echo

import (
	"net/netip"
	"time"
)

// shares is what askers take part in, so that none of them uses up what is there for all.
type shares struct {
	left  int // for all
	each  int // for one address
	taken map[netip.Addr]int
}

func newShares(all, each int) *shares {
	return &shares{left: all, each: each, taken: map[netip.Addr]int{}}
}

// take takes one for an address, if there is one for it.
func (s *shares) take(from netip.Addr) bool {
	if s.left == 0 || s.taken[from] == s.each {
		return false
	}
	s.left--
	s.taken[from]++
	return true
}

// free gives back what take took.
func (s *shares) free(from netip.Addr) {
	s.left++
	if s.taken[from]--; s.taken[from] == 0 {
		delete(s.taken, from)
	}
}

// datagramLimit limits the datagrams that are answered, second by second.
type datagramLimit struct {
	second   time.Time // when it began
	answered *shares
}

// allow reports whether another one may be answered.
func (l *datagramLimit) allow(from netip.Addr, now time.Time) bool {
	if now.Sub(l.second) >= time.Second {
		l.second, l.answered = now, newShares(datagrams, datagramsFrom)
	}
	return l.answered.take(from)
}
