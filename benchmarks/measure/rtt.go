package measure

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"time"
)

const (
	// settle is how long a stream runs before round trips beside it are counted.
	settle = 500 * time.Millisecond

	// pingPayload makes an IP packet of 64 bytes.
	pingPayload = "36"

	// sockperfSettles is what sockperf adds to a measurement: its own start, 2 s after its
	// warming up, which no option shortens, and waiting for stragglers.
	sockperfSettles = 2500 * time.Millisecond

	// uncounted is what sockperf leaves out of a measurement: 400 ms at its beginning and
	// 50 ms at its end.
	uncounted = 450 * time.Millisecond

	// sockperfPatience is how much longer than that it may run.
	sockperfPatience = 10 * time.Second
)

// trips is how long a measurement of round trips takes. sockperf knows whole seconds only.
func trips(during time.Duration) time.Duration { return wholeSeconds(during) + sockperfSettles }

// besideStream is how long the stream runs that round trips are measured beside.
func besideStream(during time.Duration) time.Duration { return wholeSeconds(trips(during) + 2*settle) }

// roundTrips measures a ping-pong on an idle path. Its ends are on different cores, as
// two nodes are: where the scheduler puts both on one, no process needs to be woken, and it
// does so now and then, which changes the figures fourfold.
func roundTrips(ctx context.Context, p pods, during time.Duration) (Values, error) {
	return pingPong(ctx, p, during,
		[]string{"--cpu-affinity", strconv.Itoa(runtime.NumCPU() - 1)}, []string{"--sender-affinity", "0"})
}

// pingPong measures by sockperf, which reports half of each round trip.
func pingPong(ctx context.Context, p pods, during time.Duration, server, client []string) (Values, error) {
	port, during := strconv.Itoa(udpPort), wholeSeconds(during)
	pong, err := p.to.StartReady(ctx, "to block on socket", "sockperf",
		append([]string{"server", "-i", p.to.Addr.String(), "-p", port}, server...)...)
	if err != nil {
		return nil, err
	}
	defer pong.Kill()
	ctx, cancel := context.WithTimeoutCause(ctx, trips(during)+sockperfPatience, errors.New("sockperf hangs"))
	defer cancel()
	out, err := p.from.Exec(ctx, "sockperf", append([]string{"ping-pong", "-i", p.to.Addr.String(), "-p", port,
		"-m", pingPayload, "-t", strconv.Itoa(int(during.Seconds()))}, client...)...)
	if err != nil {
		return nil, err
	}
	return parseSockperf(out, during)
}

var (
	countedLine  = regexp.MustCompile(`\[Valid Duration\] RunTime=([\d.]+) sec`)
	disorderLine = regexp.MustCompile(`# dropped messages = (\d+); # duplicated messages = (\d+); # out-of-order messages = (\d+)`)
	percentile   = regexp.MustCompile(`percentile (?:50\.000|99\.000|99\.900) = +([\d.]+)`)
)

// parseSockperf reads what sockperf printed about a test that lasted during.
//
// A lost message ends a ping-pong early: sockperf waits for its answer for the rest of
// the time, and does not count it as dropped. What came before it still counts, unless
// that is less than half.
func parseSockperf(out string, during time.Duration) (Values, error) {
	counted, disorder := countedLine.FindStringSubmatch(out), disorderLine.FindStringSubmatch(out)
	percentiles := percentile.FindAllStringSubmatch(out, -1) // the highest first
	if counted == nil || disorder == nil || len(percentiles) != 3 {
		// When no answer came, sockperf says so, and ends with status 0.
		return nil, fmt.Errorf("no percentiles in the report of sockperf: %s", out)
	}
	texts := map[string]string{
		p999.Key: percentiles[0][1], p99.Key: percentiles[1][1], p50.Key: percentiles[2][1],
		// These are for the file of results.
		"counted_s": counted[1], "dropped": disorder[1], "duplicated": disorder[2], "out_of_order": disorder[3],
	}
	values := Values{}
	for key, text := range texts {
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("read the report of sockperf: %s: %w", key, err)
		}
		values[key] = value
	}
	if values["counted_s"] < (during-uncounted).Seconds()/2 {
		return nil, fmt.Errorf("a message was lost after %v s of %v, and sockperf sends no other", values["counted_s"], during)
	}
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
	values, err := pingPong(ctx, p, during, nil, nil) // on busy cores, to choose is up to the scheduler
	if err != nil {
		cancel()
	}
	return values, errors.Join(err, <-streamed)
}
