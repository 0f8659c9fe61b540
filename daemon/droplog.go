package daemon

import (
	"context"
	"log/slog"
	"time"

	"weft/drop"
	"weft/router"
)

// dropLogInterval bounds the log: one line for each reason in this time at the most.
const dropLogInterval = 10 * time.Second

// logDrops logs which packets were dropped lately. It compares counters, so that
// no log line is ever written in the packet path.
func logDrops(ctx context.Context, stats func() router.Stats, log *slog.Logger) error {
	last := stats()
	return every(ctx, dropLogInterval, func() error {
		now := stats()
		for _, reason := range drop.All() {
			if n := now.Drops[reason] - last.Drops[reason]; n > 0 {
				log.Warn("packets dropped", "reason", reason.String(), "packets", n, "interval", dropLogInterval)
			}
		}
		last = now
		return nil
	})
}
