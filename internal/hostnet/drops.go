package hostnet

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// dropsAge is how old the counts may be that Drops returns. To read them takes nft some
// milliseconds, and any local user may ask for them as often as it likes.
const dropsAge = time.Second

// drops is what the guard table's counters said lately. It has a lock and an nft of its own:
// no reader of counters delays a change of the table.
type drops struct {
	now     func() time.Time
	mu      sync.Mutex
	guard   guard
	read    time.Time
	packets map[string]uint64
	err     error
}

// Drops returns how many packets each drop rule of the guard table has dropped, by the
// rule's counter, as of a second ago at most. The caller must not change the map. The counts
// survive restarts of weftd.
func (h *Host) Drops(ctx context.Context) (map[string]uint64, error) {
	d := &h.drops
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.read.IsZero() && d.now().Sub(d.read) < dropsAge {
		return d.packets, d.err
	}
	d.packets, d.err = d.guard.drops(ctx)
	d.read = d.now()
	return d.packets, d.err
}

func (g *guard) drops(ctx context.Context) (map[string]uint64, error) {
	if err := g.open(); err != nil {
		return nil, fmt.Errorf("read the guard table's counters: %w", err)
	}
	counters, err := g.counters(ctx)
	if err != nil {
		return nil, err
	}
	packets := make(map[string]uint64, len(counters))
	for name, c := range counters {
		packets[name] = *c.Packets
	}
	return packets, nil
}
