package probe

import (
	"testing"
	"time"
)

// What another process has found out of a path holds from the start, and is tried again like what
// this one has found out.
func TestNarrowPathsAreRestored(t *testing.T) {
	inWorldAfter(t, map[string]int{"node2": 1300, "node9": 1200}, nil, 1, func(w *world) {
		if got := w.Narrow(); len(got) != 1 || got["node2"] != 1300 {
			t.Errorf("Narrow = %v", got)
		}
		w.expectMTU(raiseAfter/2, 1300)
		w.expectMTU(raiseAfter, deviceMTU) // the path carries more by now
	})
}

// What another process has found out of runs holds from the start.
func TestLostRunsAreRestored(t *testing.T) {
	lost := map[string]bool{"node2": true, "node9": true}
	inWorldAfter(t, nil, lost, 1, func(w *world) {
		w.set(func() { w.runs = true })
		if got := w.RunsLost(); len(got) != 1 || !got["node2"] {
			t.Errorf("RunsLost = %v", got)
		}
		if got := w.after(2 * time.Minute); got.RunsLost {
			t.Errorf("runs arrive by now: %+v", got)
		}
	})
}
