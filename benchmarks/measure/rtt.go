package measure

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"weft/benchmarks/load"
)

// settle is how long a stream runs before round trips beside it are counted.
const settle = 500 * time.Millisecond

// besideStream is how long the stream runs that round trips are measured beside.
func besideStream(during time.Duration) time.Duration {
	return wholeSeconds(during + 2*settle)
}

// roundTrips measures a ping-pong on an idle path.
func roundTrips(ctx context.Context, p pods, during time.Duration) (Values, error) {
	pong, err := start(ctx, p.to, "ready", p.podload, "pong", strconv.Itoa(udpPort))
	if err != nil {
		return nil, err
	}
	defer pong.kill()
	var trips load.RoundTrips
	if err := runJSON(ctx, p.from, &trips, p.podload, "ping", p.target(), during.String()); err != nil {
		return nil, err
	}
	micros := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	return Values{
		p50.Key: micros(trips.P50), p99.Key: micros(trips.P99), p999.Key: micros(trips.P999),
		"lost": float64(trips.Lost), // for the file of results
	}, nil
}

// loadedRoundTrips measures one beside a TCP stream between the same pods.
func loadedRoundTrips(ctx context.Context, p pods, during time.Duration) (Values, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	streamed := make(chan error, 1)
	go func() {
		_, err := stream("--parallel", "1")(ctx, p, besideStream(during))
		streamed <- err
	}()
	select {
	case err := <-streamed:
		return nil, fmt.Errorf("the stream ended at once: %w", err)
	case <-time.After(settle):
	}
	values, err := roundTrips(ctx, p, during)
	if err != nil {
		cancel()
	}
	return values, errors.Join(err, <-streamed)
}
