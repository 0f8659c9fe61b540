package control

import (
	"testing"
	"testing/synctest"
	"time"
)

// Waits double from about the shortest to about the longest, none is the same as the next, and
// Reset begins again. Bounds may change meanwhile.
func TestBackoff(t *testing.T) {
	b := Backoff{Shortest: 100 * time.Millisecond, Longest: time.Second}
	expect := func(about ...time.Duration) {
		t.Helper()
		for i, want := range about {
			if got := b.Wait(); got < want/2 || got >= want*3/2 {
				t.Errorf("wait %d is %v, want about %v", i, got, want)
			}
		}
	}
	expect(100*time.Millisecond, 200*time.Millisecond, 400*time.Millisecond, 800*time.Millisecond, time.Second, time.Second)
	b.Reset()
	expect(100*time.Millisecond, 200*time.Millisecond)
	b.Longest = 300 * time.Millisecond
	expect(300*time.Millisecond, 300*time.Millisecond)
	if first, second := b.Wait(), b.Wait(); first == second {
		t.Errorf("twice %v", first)
	}
}

// The same waits longer each time, and something else not at all.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := Retry[string]{Backoff: Backoff{Shortest: time.Second, Longest: 2 * time.Second}}
		expect := func(what string, about time.Duration) {
			t.Helper()
			if got := r.Remaining(what); got < about/2 || got > about*3/2 {
				t.Errorf("%s waits %v, want about %v", what, got, about)
			}
		}
		expect("a", 0)
		r.Tried("a")
		expect("a", time.Second)
		expect("b", 0)
		time.Sleep(2 * time.Second)
		expect("a", 0)
		r.Tried("a")
		expect("a", 2*time.Second)
		r.Reset()
		expect("a", 0)
		r.Tried("b")
		expect("a", 0)
		expect("b", time.Second)
	})
}
