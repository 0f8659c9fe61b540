package measure

import (
	"context"
	"math"
	"time"
)

const (
	// mostLoss is the part of the packets that may be lost at a rate that counts.
	mostLoss = 0.001

	// searchSteps halve the ratio between the bounds each: from a factor of 40 in all
	// to 6 %.
	searchSteps = 6

	// lowestShare of what arrives under full speed is where the search begins: a system
	// may lose packets long before it is at its end.
	lowestShare = 1.0 / 8

	shortestTrial = 250 * time.Millisecond
)

// trialTime is how long each rate is tried.
func trialTime(during time.Duration) time.Duration { return max(during/4, shortestTrial) }

// searching is how long a search takes: a shot at full speed finds the bounds.
func searching(during time.Duration) time.Duration {
	const perTrial = 150 * time.Millisecond // programs start, the sink drains
	return (1 + searchSteps) * (trialTime(during) + perTrial)
}

// highestRate measures the highest rate at which hardly a packet is lost.
func highestRate(sizes string) func(context.Context, pods, time.Duration) (Values, error) {
	return func(ctx context.Context, p pods, during time.Duration) (Values, error) {
		full, err := p.shoot(ctx, sizes, 0, trialTime(during))
		if err != nil {
			return nil, err
		}
		try := func(rate float64) (trial, error) {
			s, err := p.shoot(ctx, sizes, rate, trialTime(during))
			return trial{rate: s.sent.Rate(), loss: s.loss()}, err
		}
		rate, err := search(full.arrived.Rate()*lowestShare, full.sent.Rate(), try)
		return Values{lossless.Key: rate / 1e3}, err
	}
}

// trial is what came of asking for a rate.
type trial struct {
	rate float64 // packets/s that were really sent
	loss float64
}

// search looks for the highest rate between low and high that loses no more than
// mostLoss, by bisection of their ratio. 0 means that it found none.
func search(low, high float64, try func(rate float64) (trial, error)) (float64, error) {
	best := 0.0
	for range searchSteps {
		if low <= 0 || high <= low {
			break
		}
		middle := math.Sqrt(low * high)
		t, err := try(middle)
		if err != nil {
			return 0, err
		}
		if t.loss > mostLoss {
			high = middle
			continue
		}
		// A source that falls short of the rate was tried at what it reached.
		best, low = max(best, t.rate), middle
	}
	return best, nil
}
