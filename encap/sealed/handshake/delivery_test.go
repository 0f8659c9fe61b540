package handshake

import (
	"testing"
	"time"
)

// simulate has a peer sent 1,000 datagrams between reports, of which lose returns how many are
// lost, and returns the stages.
func simulate(d *delivery, now *time.Time, reports int, lose func(report int, s stage) int) (stages []stage) {
	for i := range reports {
		if *now = now.Add(4 * time.Second); !d.due(d.sent + 1000) {
			continue
		}
		d.judge(d.sent+1000, d.arrived+uint64(1000-lose(i, d.stage)), *now)
		stages = append(stages, d.stage)
	}
	return stages
}

func TestRunsThatLoseAreFound(t *testing.T) {
	sent := func(s stage) bool { return s == inRuns || s == again }
	for _, tc := range []struct {
		name string
		lose func(report int, s stage) int
		lost bool
	}{ // for two hours
		{"all arrives", func(int, stage) int { return 0 }, false},
		{"all in runs is lost", func(_ int, s stage) int { return map[bool]int{true: 1000}[sent(s)] }, true},
		{"all but the first in each run is lost", func(_ int, s stage) int { return map[bool]int{true: 970}[sent(s)] }, true},
		{"of TCP that stalls a third arrives", func(_ int, s stage) int { return map[bool]int{true: 667, false: 20}[sent(s)] }, true},
		{"all is lost", func(int, stage) int { return 1000 }, false},
		{"a path loses a third", func(int, stage) int { return 333 }, false},
		{"a path loses a tenth", func(int, stage) int { return 100 }, false},
		{"congestion that ends", func(report int, _ stage) int { return map[bool]int{true: 900}[report < 2] }, false},
		{"congestion that ends when single ones are tried", func(report int, _ stage) int { return map[bool]int{true: 900}[report == 1] }, false},
	} {
		d, now := new(delivery), time.Now()
		stages := simulate(d, &now, 2000, tc.lose)
		if got := d.stage == runsLost; got != tc.lost {
			t.Errorf("%s: runs are lost: %v, after %v", tc.name, got, stages[:10])
		}
		singles := 0
		for _, s := range stages {
			if s == singly {
				singles++
			}
		}
		if !tc.lost && singles > 20 {
			t.Errorf("%s: single datagrams were tried %d times", tc.name, singles)
		}
	}
}

// A peer that was restarted counts from 0 again, and so does this node.
func TestRestartsLoseNothing(t *testing.T) {
	d, now := new(delivery), time.Now()
	simulate(d, &now, 10, func(int, stage) int { return 0 })
	d.judge(d.sent+1000, 3, now)
	d.judge(5, d.arrived+1000, now)
	if d.stage != inRuns || d.sent != 5 {
		t.Errorf("after restarts: %+v", *d)
	}
	d.judge(d.sent+judged-1, d.arrived, now)
	if d.stage != inRuns {
		t.Error("too few datagrams were judged")
	}
}
