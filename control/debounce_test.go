package control

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// settled are the times at which States are emitted that take some time each, when something
// changes at other times; all since the beginning.
func settled(t *testing.T, took time.Duration, changes []time.Duration) (at []time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := Debounce{Interval: 20 * time.Millisecond, Longest: 200 * time.Millisecond}
		began := time.Now()
		change := make(chan struct{}, len(changes))
		go func() {
			for _, c := range changes {
				time.Sleep(time.Until(began.Add(c)))
				change <- struct{}{}
			}
		}()
		end := time.After(changes[len(changes)-1] + time.Minute)
		for {
			select {
			case <-end:
				return
			case <-change:
				s.Disturb()
			case <-s.Due:
				s.Done()
				at = append(at, time.Since(began))
				s.paced(func() { time.Sleep(took) })
			}
		}
	})
	return at
}

func TestChangesWaitForThePauseButNotForever(t *testing.T) {
	const ms = time.Millisecond
	every := func(interval time.Duration, count int) (changes []time.Duration) {
		for i := range count {
			changes = append(changes, time.Duration(i)*interval)
		}
		return changes
	}
	for _, tt := range []struct {
		name    string
		took    time.Duration
		changes []time.Duration
		want    []time.Duration
	}{
		{"a single one", 100 * ms, []time.Duration{0}, []time.Duration{20 * ms}},
		{"one after a pause", 100 * ms, []time.Duration{0, 220 * ms}, []time.Duration{20 * ms, 240 * ms}},
		{"a few at once", 100 * ms, []time.Duration{0, 10 * ms, 25 * ms}, []time.Duration{20*ms + 25*ms}},
		{"without end", 0, every(15*ms, 40), []time.Duration{200 * ms, 410 * ms, 605 * ms}},
		{"while a State is made", 100 * ms, []time.Duration{0, 30 * ms}, []time.Duration{20 * ms, 220 * ms}},
		{"after a State that took long", 3000 * ms, []time.Duration{0, 4000 * ms, 4010 * ms}, []time.Duration{20 * ms, 6020 * ms}},
	} {
		at := settled(t, tt.took, tt.changes)
		if !slices.Equal(at, tt.want) {
			t.Errorf("%s: %v; want %v", tt.name, at, tt.want)
		}
	}
}

func TestStatesTakeHalfOfTheTimeAtMost(t *testing.T) {
	var changes []time.Duration
	for i := range 1000 {
		changes = append(changes, time.Duration(i)*5*time.Millisecond)
	}
	const took = 400 * time.Millisecond
	at := settled(t, took, changes)
	if busy := time.Duration(len(at)) * took; busy > changes[len(changes)-1]/2+took || len(at) < 6 {
		t.Errorf("of %v, %v in %d States", changes[len(changes)-1], busy, len(at))
	}
}
