package handshake

import (
	"testing"
	"testing/synctest"
	"time"
)

// The limit grows with handshakes that succeed while it is in use, by one each; it halves when
// packets wait to be read, once for all that were waiting, and then grows by one in as many
// handshakes as it allows; a minute later it begins anew.
func TestLimitFollowsTheMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l limit
		want := func(n int) {
			t.Helper()
			if got := l.now(); got != n {
				t.Fatalf("the limit is %d, want %d", got, n)
			}
		}
		want(beginWith)
		l.succeeded(1)
		l.read(time.Now())
		want(beginWith)
		for range 2 * most {
			l.succeeded(most)
		}
		want(most)

		arrived := time.Now()
		time.Sleep(overloaded)
		for range 100 {
			l.read(arrived)
		}
		want(most / 2)
		for range most/2 + 1 {
			l.succeeded(most)
		}
		want(most/2 + 1)
		for range 10 {
			arrived := time.Now()
			time.Sleep(overloaded)
			l.read(arrived)
		}
		want(fewest)
		time.Sleep(outdated + 1)
		want(beginWith)
	})
}
