package daemon

import (
	"context"
	"sync"
	"time"

	"weft/internal/status"
)

// rateInterval is how often peers' counters are noted, for rates.
const rateInterval = 10 * time.Second

// rateWatch knows what peers' counters were 10 to 20 s ago.
type rateWatch struct {
	mu           sync.Mutex // guards what follows
	before, last trafficSample
}

// trafficSample is peers' counters at a time, by their names.
type trafficSample struct {
	at    time.Time
	peers map[string]status.Traffic
}

// run notes the counters until ctx is done.
func (w *rateWatch) run(ctx context.Context, traffic func() map[string]status.Traffic) error {
	w.note(traffic(), time.Now())
	return every(ctx, rateInterval, func() error {
		w.note(traffic(), time.Now())
		return nil
	})
}

func (w *rateWatch) note(now map[string]status.Traffic, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before, w.last = w.last, trafficSample{at, now}
}

// of returns the rates that have led to the present counters; none in the first second.
func (w *rateWatch) of(now map[string]status.Traffic, at time.Time) map[string]*status.Rates {
	w.mu.Lock()
	base := w.before
	if base.peers == nil {
		base = w.last
	}
	w.mu.Unlock()
	seconds := at.Sub(base.at).Seconds()
	if base.peers == nil || seconds < 1 {
		return nil
	}
	rates := make(map[string]*status.Rates, len(now))
	for name, t := range now {
		b := base.peers[name]
		per := func(now, before uint64) uint64 {
			if now < before { // a node of the same name came anew
				before = 0
			}
			return uint64(float64(now-before)/seconds + 0.5)
		}
		rates[name] = &status.Rates{
			SentPackets: per(t.SentPackets, b.SentPackets), SentBytes: per(t.SentBytes, b.SentBytes),
			ReceivedPackets: per(t.ReceivedPackets, b.ReceivedPackets), ReceivedBytes: per(t.ReceivedBytes, b.ReceivedBytes),
		}
	}
	return rates
}
