package daemon

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"weft/drop"
	"weft/internal/events"
	"weft/router"
)

const (
	// dropLogInterval bounds the log: one line for each reason in this time at the most.
	dropLogInterval = 10 * time.Second

	// dropsEnded is how long after the last one drops of a reason have ended, and what "lately"
	// means in `weft status`.
	dropsEnded = time.Minute
)

// dropWatch knows which packets were dropped lately, by weftd and by the guard table. It compares
// counters, so that nothing is done in the packet path.
type dropWatch struct {
	log   *slog.Logger
	stats func() router.Stats
	guard func() (map[string]uint64, error)

	mu      sync.Mutex // guards what follows
	samples []dropCounts
	running map[string]map[string]*dropRun // by what drops, and reason
}

// dropCounts are the counters at a time.
type dropCounts struct {
	at           time.Time
	weftd, guard map[string]uint64
}

// dropRun is drops of one reason without a longer pause.
type dropRun struct {
	began, last time.Time
	packets     uint64
}

func newDropWatch(log *slog.Logger, stats func() router.Stats, guard func() (map[string]uint64, error)) *dropWatch {
	return &dropWatch{log: log, stats: stats, guard: guard, running: map[string]map[string]*dropRun{byWeftd: {}, byGuard: {}}}
}

// Who drops.
const (
	byWeftd = "weftd"
	byGuard = "guard"
)

// run logs drops until ctx is done.
func (w *dropWatch) run(ctx context.Context) error {
	w.look(time.Now())
	return every(ctx, dropLogInterval, func() error {
		w.look(time.Now())
		return nil
	})
}

// logged returns the drops that look has seen, by what drops, and reason; nil before it has looked.
func (w *dropWatch) logged() map[string]map[string]uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.samples) == 0 {
		return nil
	}
	last := w.samples[len(w.samples)-1]
	return map[string]map[string]uint64{byWeftd: last.weftd, byGuard: last.guard}
}

// restore has the first look compare with what the weftd before has logged. So this one logs what was
// dropped after that one's last look.
func (w *dropWatch) restore(logged map[string]map[string]uint64, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if logged != nil && len(w.samples) == 0 {
		w.samples = []dropCounts{{now, logged[byWeftd], logged[byGuard]}}
	}
}

// count reads the counters. Without a guard table there are none of its.
func (w *dropWatch) count(now time.Time) dropCounts {
	c := dropCounts{at: now, weftd: dropsByName(w.stats())}
	c.guard = map[string]uint64{}            // no null in JSON
	if guard, err := w.guard(); err == nil { // or /healthz reports it
		c.guard = guard
	}
	return c
}

// dropsByName returns the drop counters that are not zero.
func dropsByName(s router.Stats) map[string]uint64 {
	drops := map[string]uint64{}
	for _, reason := range drop.All() {
		if n := s.Drops[reason]; n > 0 {
			drops[reason.String()] = n
		}
	}
	return drops
}

// look compares the counters with those of the last time.
func (w *dropWatch) look(now time.Time) {
	counts := w.count(now)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.samples) > 0 {
		last := w.samples[len(w.samples)-1]
		w.compare(byWeftd, grown(last.weftd, counts.weftd), last.at, now)
		w.compare(byGuard, grown(last.guard, counts.guard), last.at, now)
	}
	w.samples = append(w.samples, counts)
	// One sample that is a minute old stays.
	for len(w.samples) > 1 && now.Sub(w.samples[1].at) >= dropsEnded {
		w.samples = slices.Delete(w.samples, 0, 1)
	}
}

// compare logs the drops between two times, and which ones have ended.
func (w *dropWatch) compare(by string, drops map[string]uint64, before, now time.Time) {
	running := w.running[by]
	for _, reason := range slices.Sorted(maps.Keys(drops)) {
		r := running[reason]
		first := r == nil
		if first {
			r = &dropRun{began: before}
			running[reason] = r
		}
		r.packets += drops[reason]
		r.last = now
		switch {
		case by == byWeftd:
			w.log.Warn("packets dropped", "reason", reason, "packets", drops[reason], "interval", dropLogInterval)
		case first:
			w.log.Warn("guard drops packets", "counter", reason, "packets", drops[reason])
		default: // it drops what is forged, which may go on for days
			w.log.Log(context.Background(), events.LevelQuiet, "guard drops packets", "counter", reason, "packets", r.packets)
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(running)) {
		r := running[reason]
		if now.Sub(r.last) < dropsEnded {
			continue
		}
		delete(running, reason)
		message, key := "packet drops ended", "reason"
		if by == byGuard {
			message, key = "guard drops ended", "counter"
		}
		w.log.Info(message, key, reason, "packets", r.packets, "duration", r.last.Sub(r.began).Round(time.Second))
	}
}

// grown returns by how much counters have grown. One that is smaller than before began anew.
func grown(before, now map[string]uint64) map[string]uint64 {
	drops := map[string]uint64{}
	for name, n := range now {
		if b := before[name]; n >= b {
			n -= b
		}
		if n > 0 {
			drops[name] = n
		}
	}
	return drops
}

// lately returns what was dropped in the last minute, by weftd and by the guard table, and what
// the guard table has dropped in all.
func (w *dropWatch) lately(now time.Time) (weftd, guard, guardTotal map[string]uint64) {
	counts := w.count(now)
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.samples) == 0 {
		return map[string]uint64{}, map[string]uint64{}, counts.guard
	}
	oldest := w.samples[0]
	return grown(oldest.weftd, counts.weftd), grown(oldest.guard, counts.guard), counts.guard
}
