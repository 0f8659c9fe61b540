package probe

import (
	"testing"
	"time"
)

// changed reports whether the world's prober has reported a change.
func (w *world) changed() bool {
	select {
	case <-w.Changed:
		return true
	default:
		return false
	}
}

func TestFindsThatRunsGetLost(t *testing.T) {
	for _, tc := range []struct {
		name  string
		loses func(lane, i int) bool
	}{
		{"all of a run", func(int, int) bool { return true }},
		{"all but the first datagram", func(_, i int) bool { return i > 0 }},
		{"those of one lane of three", func(lane, _ int) bool { return lane == 2 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inWorld(t, 3, func(w *world) {
				w.set(func() { w.runs = true })
				if got := w.after(time.Minute); got.RunsLost || w.changed() {
					t.Errorf("before: %+v", got)
				}
				w.set(func() { w.losesInRun = tc.loses })
				if got := w.after(10 * time.Second); !got.RunsLost || got.MTU != deviceMTU || got.Loss > 0 || !w.changed() {
					t.Errorf("runs get lost: %+v", got)
				}
				before := w.requests()
				if got := w.after(10 * time.Minute); !got.RunsLost || w.changed() {
					t.Errorf("ten minutes later: %+v", got)
				}
				if n := w.requests() - before; n > 300*(3*2+runLen)+10 {
					t.Errorf("%d probes in ten minutes of runs that get lost", n)
				}
				w.set(func() { w.losesInRun = func(int, int) bool { return false } })
				if got := w.after(30 * time.Second); !got.RunsLost {
					t.Errorf("half a minute after the repair: %+v", got)
				}
				if got := w.after(time.Minute); got.RunsLost || !w.changed() {
					t.Errorf("long after the repair: %+v", got)
				}
			})
		})
	}
}

// TestRunsThatLoseSomeArrive: runs of which only some get lost are no worse than single datagrams.
func TestRunsThatLoseSomeArrive(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.set(func() { w.runs, w.losesInRun = true, func(_, i int) bool { return i > 1 } })
		if got := w.after(time.Minute); got.RunsLost {
			t.Errorf("%+v", got)
		}
	})
}

// TestNarrowPathLosesNoRuns: too large datagrams get lost in runs and singly.
func TestNarrowPathLosesNoRuns(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		w.set(func() { w.runs, w.loses = true, above(1300) })
		for range 60 {
			if got := w.after(time.Second); got.RunsLost {
				t.Fatalf("%+v", got)
			}
		}
		w.expectMTU(0, 1300)
		w.set(func() { w.losesInRun = func(int, int) bool { return true } })
		if got := w.after(10 * time.Second); !got.RunsLost || got.MTU != 1300 {
			t.Errorf("runs get lost, too: %+v", got)
		}
	})
}
