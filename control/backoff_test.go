package control

import (
	"testing"
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
