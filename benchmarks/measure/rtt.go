package measure

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"
)

const (
	// settle is how long a stream runs before round trips beside it are counted.
	settle = 500 * time.Millisecond

	// pingPayload makes an IP packet of 64 bytes.
	pingPayload = "36"

	// sockperfSettles is what sockperf adds to a measurement: its own warming up and
	// waiting for stragglers.
	sockperfSettles = 2500 * time.Millisecond

	// sockperfPatience is how much longer than that it may run.
	sockperfPatience = 10 * time.Second
)

// trips is how long a measurement of round trips takes. sockperf knows whole seconds only.
func trips(during time.Duration) time.Duration { return wholeSeconds(during) + sockperfSettles }

// besideStream is how long the stream runs that round trips are measured beside.
func besideStream(during time.Duration) time.Duration { return wholeSeconds(trips(during) + 2*settle) }

// roundTrips measures a ping-pong on an idle path by sockperf. What it tells is half
// of each round trip.
func roundTrips(ctx context.Context, p pods, during time.Duration) (Values, error) {
	port := strconv.Itoa(udpPort)
	pong, err := start(ctx, p.to, "to block on socket", "sockperf", "server", "-i", p.to.Addr.String(), "-p", port)
	if err != nil {
		return nil, err
	}
	defer pong.kill()
	ctx, cancel := context.WithTimeoutCause(ctx, trips(during)+sockperfPatience, errors.New("sockperf hangs"))
	defer cancel()
	out, err := p.from.Exec(ctx, "sockperf", "ping-pong", "-i", p.to.Addr.String(), "-p", port, "-m", pingPayload,
		"-t", strconv.Itoa(int(wholeSeconds(during).Seconds())))
	if err != nil {
		return nil, err
	}
	return parseSockperf(out)
}

var (
	percentile = regexp.MustCompile(`percentile (\d+\.\d+) = +([\d.]+)`)
	dropped    = regexp.MustCompile(`# dropped messages = (\d+)`)
)

// parseSockperf reads the percentiles, in microseconds, of a report.
func parseSockperf(out string) (Values, error) {
	values := Values{}
	keys := map[string]string{"50.000": p50.Key, "99.000": p99.Key, "99.900": p999.Key}
	for _, match := range percentile.FindAllStringSubmatch(out, -1) {
		key, wanted := keys[match[1]]
		if !wanted {
			continue
		}
		micros, err := strconv.ParseFloat(match[2], 64)
		if err != nil {
			return nil, fmt.Errorf("percentile %s of sockperf: %w", match[1], err)
		}
		values[key] = micros
	}
	lost := dropped.FindStringSubmatch(out)
	if len(values) != len(keys) || lost == nil {
		return nil, fmt.Errorf("no percentiles in the report of sockperf: %s", out)
	}
	n, err := strconv.ParseFloat(lost[1], 64)
	if err != nil {
		return nil, fmt.Errorf("lost messages of sockperf: %w", err)
	}
	values["lost"] = n // for the file of results
	return values, nil
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
