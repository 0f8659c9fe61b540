package echo

import (
	"net/netip"
	"testing"
	"time"
)

func TestSharesAreGivenBack(t *testing.T) {
	s, a, b := newShares(3, 2), netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("fd00::2")
	for i, step := range []struct {
		from netip.Addr
		want bool
	}{{a, true}, {a, true}, {a, false}, {b, true}, {b, false}} {
		if got := s.take(step.from); got != step.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
	s.free(a)
	s.free(a)
	s.free(b)
	if len(s.taken) > 0 || s.left != 3 {
		t.Errorf("when all are given back: %+v", s)
	}
}

// TestFloodLeavesOthersAnswers: an address that floods gets its own answers only, second by second.
func TestFloodLeavesOthersAnswers(t *testing.T) {
	var limit datagramLimit
	now, flooding, other := time.Now(), netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("10.244.1.3")
	for range 2 {
		answered := 0
		for range 10 * datagrams {
			if limit.allow(flooding, now) {
				answered++
			}
		}
		if answered != datagramsFrom || !limit.allow(other, now) {
			t.Errorf("%d datagrams of a flood were answered, and none of another address", answered)
		}
		now = now.Add(time.Second)
	}
}
