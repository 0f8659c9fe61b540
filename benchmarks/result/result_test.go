package result

import (
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"weft/benchmarks/machine"
	"weft/benchmarks/measure"
	"weft/benchmarks/system"
)

func TestMediansAndEnds(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   Spread
	}{
		{nil, Spread{}},
		{[]float64{3}, Spread{Median: 3, Min: 3, Max: 3, N: 1}},
		{[]float64{4, 1, 3, 2}, Spread{Median: 2.5, Min: 1, Max: 4, N: 4}},
		{[]float64{9, 1, 5}, Spread{Median: 5, Min: 1, Max: 9, N: 3}},
	} {
		if got := Summarize(tt.values); got != tt.want {
			t.Errorf("%v: got %+v", tt.values, got)
		}
	}
}

func TestPercentilesAreValuesThatWereMeasured(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for _, tt := range []struct {
		values  []float64
		p, want float64
	}{
		{nil, 50, 0},
		{[]float64{7}, 99, 7},
		{[]float64{3, 1, 2}, 50, 2},
		{[]float64{4, 3, 1, 2}, 50, 2},
		{hundred, 10, 10},
		{hundred, 99, 99},
		{hundred, 100, 100},
	} {
		if got := Percentile(tt.values, tt.p); got != tt.want {
			t.Errorf("%v %% of %v: got %v", tt.p, tt.values, got)
		}
	}
}

func sample(system string, repeat int, gbps float64) Sample {
	return Sample{Profile: "full", System: system, Cell: "tcp1", Repeat: repeat, Values: measure.Values{"gbps": gbps}}
}

func TestRatiosAreTakenWithinARepeat(t *testing.T) {
	failed := Sample{Profile: "full", System: "weft", Cell: "tcp1", Repeat: 3, Error: "it crashed"}
	r := &Run{Samples: []Sample{
		// The machine is twice as fast in the second repeat, for both.
		sample("kernel", 0, 10), sample("weft", 0, 5),
		sample("kernel", 1, 20), sample("weft", 1, 10),
		sample("kernel", 2, 10), sample("weft", 2, 8),
		sample("kernel", 3, 10), failed,
	}}
	k := Key{Profile: "full", System: "weft", Cell: "tcp1", Metric: "gbps"}
	if got := r.Ratio(k, "kernel"); got != (Spread{Median: 0.5, Min: 0.5, Max: 0.8, N: 3}) {
		t.Errorf("ratio %+v", got)
	}
	if got := r.Spread(k); got != (Spread{Median: 8, Min: 5, Max: 10, N: 3}) {
		t.Errorf("spread %+v", got)
	}
	if got := r.Ratio(k, "nobody"); got.N != 0 {
		t.Errorf("ratio to a system that was not measured: %+v", got)
	}
}

func TestPairsAreComparedIfBothAreThere(t *testing.T) {
	r := &Run{Systems: []System{{Name: "kernel"}, {Name: "weft"}, {Name: "floor"}}, Baseline: "kernel"}
	if got := r.Compared(); !slices.Equal(got, []system.Pair{{System: "weft", To: "kernel"}, {System: "floor", To: "kernel"}}) {
		t.Errorf("without pairs: %v", got)
	}
	r.Pairs = []system.Pair{{System: "weft", To: "floor"}, {System: "weft", To: "other"}, {System: "other", To: "weft"}}
	if got := r.Compared(); !slices.Equal(got, r.Pairs[:1]) {
		t.Errorf("with pairs: %v", got)
	}
	r.Pairs, r.Baseline = nil, ""
	if got := r.Compared(); len(got) != 0 {
		t.Errorf("without a baseline: %v", got)
	}
}

func TestARunIsTheSameAfterSavingAndLoading(t *testing.T) {
	run := &Run{
		Started: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Took: time.Hour, InnerMTU: 1420, Repeat: 5, Time: 4 * time.Second,
		Environment: machine.Environment{Kernel: "6.18", Cores: 2, Versions: map[string]string{"iperf3": "3.12"},
			Prices: machine.Prices{SystemCall: 210, WakeUp: 14200, Copy64KiB: 9040}},
		Profiles: []Profile{{Name: "full", Features: system.Features{"tx-udp-segmentation": true}}},
		Systems:  []System{{Name: "wireguard-go", Encrypted: true}},
		Cells:    []string{"tcp1"},
		Pairs:    []system.Pair{{System: "wireguard-go", To: "kernel-vxlan"}},
		Samples: []Sample{{Profile: "full", System: "wireguard-go", Cell: "tcp1", Values: measure.Values{"gbps": 3.1},
			CPU: machine.CPU{Busy: 1}, Counters: system.Counters{"device_packets_node1": 7}}},
	}
	path := filepath.Join(t.TempDir(), "new", "run.json")
	if err := run.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil || !reflect.DeepEqual(got, run) {
		t.Errorf("got %+v, %v", got, err)
	}
	if total := got.Total("full", "wireguard-go", "tcp1", "device_packets_node1"); total != 7 {
		t.Errorf("%d packets", total)
	}
	if _, err := Load(filepath.Join(t.TempDir(), "absent.json")); err == nil {
		t.Error("no error")
	}
}
