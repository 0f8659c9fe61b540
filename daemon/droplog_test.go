package daemon

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/drop"
	"weft/router"
)

func TestDropsBeginGoOnAndEnd(t *testing.T) {
	var text bytes.Buffer
	var stats router.Stats
	guard := map[string]uint64{"loopback": 100}
	log := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}}))
	w := newDropWatch(log, func() router.Stats { return stats }, func() (map[string]uint64, error) { return guard, nil })
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	stats.Drops[drop.NoKeys] = 1000 // before weftd looked first
	w.look(now)
	for i := range 12 {
		now = now.Add(dropLogInterval)
		guard = map[string]uint64{"loopback": 100}
		switch i {
		case 0, 1:
			stats.Drops[drop.NoRoute] += 5
			guard["loopback"] += uint64(i + 1)
		default:
			guard["loopback"] += 2
		}
		w.look(now)
		if i == 2 {
			weftd, guarded, total := w.lately(now.Add(time.Second))
			if diff := cmp.Diff([]map[string]uint64{{"no_route": 10}, {"loopback": 2}, {"loopback": 102}}, []map[string]uint64{weftd, guarded, total}); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
	}
	want := `
msg="packets dropped" reason=no_route packets=5 interval=10s
msg="guard drops packets" counter=loopback packets=1
msg="packets dropped" reason=no_route packets=5 interval=10s
msg="packet drops ended" reason=no_route packets=10 duration=20s
msg="guard drops ended" counter=loopback packets=2 duration=20s
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), text.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if weftd, guarded, _ := w.lately(now); len(weftd) > 0 || len(guarded) > 0 {
		t.Errorf("dropped in the last minute: %v %v", weftd, guarded)
	}
}

// TestDropsAroundAHandoverAreLogged: those that the weftd before has not logged, once.
func TestDropsAroundAHandoverAreLogged(t *testing.T) {
	var text bytes.Buffer
	var stats router.Stats
	guard := map[string]uint64{"loopback": 7}
	watch := func() *dropWatch {
		return newDropWatch(slog.New(slog.NewTextHandler(&text, nil)), func() router.Stats { return stats }, func() (map[string]uint64, error) { return guard, nil })
	}
	before := watch()
	if got := before.logged(); got != nil {
		t.Errorf("before the first look, it has logged %v", got)
	}
	before.look(time.Now())
	stats.Drops[drop.NoRoute] = 3
	before.look(time.Now())
	stats.Drops[drop.NoRoute], stats.Drops[drop.UnknownIndex] = 5, 1
	next := watch()
	next.restore(before.logged(), time.Now())
	next.restore(map[string]map[string]uint64{}, time.Now()) // as after a hand-over that was taken back
	for range 2 {
		next.look(time.Now())
	}
	for _, want := range []string{"reason=no_route packets=3", "reason=no_route packets=2", "reason=unknown_index packets=1"} {
		if strings.Count(text.String(), want) != 1 {
			t.Errorf("no line, or more than one, with %q", want)
		}
	}
	if strings.Count(text.String(), "\n") != 3 {
		t.Errorf("the log has\n%s", text.String())
	}
}

func TestCountersThatBeganAnewCount(t *testing.T) {
	if diff := cmp.Diff(map[string]uint64{"b": 2, "c": 3}, grown(map[string]uint64{"a": 1, "b": 5}, map[string]uint64{"a": 1, "b": 2, "c": 3})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
