package handshake

import (
	"testing"
	"time"
)

// sending is what a node sends between two reports, where it may send runs.
type sending struct{ sent, inRuns int }

var (
	bulk    = sending{100000, 99000}
	stalled = sending{18, 4} // TCP that sends a run, loses it, and sends single datagrams until it dares to again
	small   = sending{5000, 100}
)

// simulate has a peer sent datagrams for two hours, of which lose returns how many are lost of
// those in runs and of the others, and returns the stages.
func simulate(d *delivery, s sending, lose func(report int) (inRuns, singly float64)) (stages []stage) {
	now, arrived := time.Now(), uint64(1000)
	for i := range 2 * 3600 {
		now = now.Add(time.Second)
		d.tryAgain(now)
		runs := s.inRuns
		if !d.sendsRuns() {
			runs = 0
		}
		inRuns, singly := lose(i)
		lost := inRuns*float64(runs) + singly*float64(s.sent-runs)
		sent := counts{uint64((i + 1) * s.sent), d.asked.inRuns + uint64(runs)}
		arrived += uint64(float64(s.sent) - lost)
		due := d.due(sent)
		d.asked = sent
		if due {
			d.judge(arrived, now)
		}
		stages = append(stages, d.stage)
	}
	return stages
}

func TestRunsThatLoseAreFound(t *testing.T) {
	always := func(inRuns, singly float64) func(int) (float64, float64) {
		return func(int) (float64, float64) { return inRuns, singly }
	}
	between := func(first, last int, loss float64) func(int) (float64, float64) {
		return func(report int) (float64, float64) {
			if report < first || report > last {
				return 0, 0
			}
			return loss, loss
		}
	}
	for _, tc := range []struct {
		name string
		what sending
		lose func(report int) (inRuns, singly float64)
		lost bool
	}{
		{"all arrives", bulk, always(0, 0), false},
		{"all in runs is lost", bulk, always(1, 0), true},
		{"all in runs is lost, and something else", bulk, always(1, 0.02), true},
		{"all in runs is lost, and TCP stalls", stalled, always(1, 0), true},
		{"all but the first in each run is lost", bulk, always(0.97, 0), true},
		{"all but the first of two is lost", stalled, always(0.5, 0), true},
		{"all is lost", bulk, always(1, 1), false},
		{"a path loses a third", bulk, always(0.33, 0.33), false},
		{"a path loses two thirds", bulk, always(0.67, 0.67), false},
		{"a path loses a tenth", stalled, always(0.1, 0.1), false},
		{"a path loses a hundredth of small packets", small, always(0.01, 0.01), false},
		{"congestion that ends", bulk, between(0, 2, 0.9), false},
		{"congestion that ends when single ones are tried", bulk, between(1, 1, 0.9), false},
	} {
		d := new(delivery)
		stages := simulate(d, tc.what, tc.lose)
		if got := d.stage == runsLost; got != tc.lost {
			t.Errorf("%s: runs are lost: %v, after %v", tc.name, got, stages[:20])
		}
		seconds := map[stage]int{}
		for _, s := range stages {
			seconds[s]++
		}
		if tc.lost && seconds[inRuns]+seconds[again] > 30 {
			t.Errorf("%s: runs were sent for %d s", tc.name, seconds[inRuns]+seconds[again])
		}
		if !tc.lost && seconds[singly] > 40 {
			t.Errorf("%s: single datagrams were tried for %d s", tc.name, seconds[singly])
		}
	}
}

// A peer that was restarted counts from 0 again, and so does this node.
func TestRestartsLoseNothing(t *testing.T) {
	d, now := new(delivery), time.Now()
	for _, step := range []struct {
		asked   counts
		arrived uint64
	}{
		{counts{1000, 1000}, 5000}, // of this node's last life too
		{counts{2000, 2000}, 6000},
		{counts{3000, 3000}, 3},   // the peer was restarted
		{counts{5, 5}, 1003},      // this node was
		{counts{12, 12}, 1003},    // too few for a verdict
		{counts{1000, 5}, 1003},   // none of them in runs
		{counts{2000, 900}, 2998}, // and all arrive
	} {
		d.asked = step.asked
		d.judge(step.arrived, now)
		if d.stage != inRuns {
			t.Errorf("after %+v: %+v", step, *d)
		}
	}
}
