package report

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/benchmarks/machine"
	"weft/benchmarks/measure"
	"weft/benchmarks/result"
	"weft/benchmarks/system"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// exampleRun has three repeats of two systems and a third that is encrypted and failed
// once in every cell.
func exampleRun() *result.Run {
	r := &result.Run{
		Started:  time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		InnerMTU: 1420, Repeat: 3, Time: 4 * time.Second, Baseline: "kernel-vxlan",
		Environment: machine.Environment{
			Kernel: "6.18.0 x86_64", CPU: "Example CPU", Cores: 2, MemoryGB: 24, Load1: 1.5,
			Versions: map[string]string{"iperf3": "iperf 3.12", "weft": "weftd v1.0.0"},
			Prices:   machine.Prices{SystemCall: 210, WakeUp: 14200, Copy64KiB: 9040},
		},
		Profiles: []result.Profile{
			{Name: "full", IdleShare: 0.004, Features: system.Features{"tx-checksumming": true, "tx-udp_tnl-segmentation": true}},
			{Name: "bare"},
		},
		Systems: []result.System{{Name: "kernel-vxlan"}, {Name: "weft-vxlan/superpacket"}, {Name: "wireguard-go", Encrypted: true}},
		Cells:   []string{"tcp1", "udp64", "rtt"},
	}
	speed := map[string]float64{"kernel-vxlan": 10, "weft-vxlan/superpacket": 8, "wireguard-go": 3}
	for _, p := range r.Profiles {
		for repeat := range 3 {
			for _, s := range r.Systems {
				r.Samples = append(r.Samples, exampleSamples(p.Name, s.Name, repeat, speed[s.Name]+float64(repeat))...)
			}
		}
	}
	return r
}

func exampleSamples(profile, name string, repeat int, speed float64) []result.Sample {
	samples := []result.Sample{
		{Cell: "tcp1", Values: measure.Values{"gbps": speed, "retransmits": 1200, "cpu_per_gbit": 1 / speed}},
		{Cell: "udp64", Values: measure.Values{"kpps": 120 * speed, "cpu_per_mpkt": 100 / speed},
			Counters: system.Counters{"device_packets_node1": 1000}},
		{Cell: "rtt", Values: measure.Values{"p50": 400 / speed, "p99": 800 / speed, "p999": 16000 / speed}},
	}
	for i := range samples {
		samples[i].Profile, samples[i].System, samples[i].Repeat = profile, name, repeat
		samples[i].CPU = machine.CPU{Busy: 7, Steal: 0.5, Idle: 0.5}
	}
	if name == "weft-vxlan/superpacket" {
		samples[1].Counters = system.Counters{"device_drops": 10, `weft_drops_total{reason="too_big"}`: 2}
	}
	if name == "wireguard-go" && repeat == 1 {
		samples[0].Values, samples[0].Error = nil, "iperf3 hangs"
	}
	return samples
}

// examplePairs is a run of pairs, of which one has a system that is not there.
func examplePairs() *result.Run {
	r := exampleRun()
	r.Pairs = []system.Pair{
		{System: "weft-vxlan/superpacket", To: "kernel-vxlan"}, {System: "weft-vxlan/superpacket", To: "floor-2"},
		{System: "weft-vxlan/superpacket", To: "wireguard-go"},
	}
	return r
}

func TestReportsLookLikeThis(t *testing.T) {
	for name, shown := range map[string]struct {
		run    *result.Run
		ratios bool
	}{
		"tables": {run: exampleRun()}, "ratios": {examplePairs(), true}, "pods": {run: examplePods()}, "scale": {run: exampleScale()},
	} {
		var got bytes.Buffer
		Print(&got, shown.run, shown.ratios)
		path := filepath.Join("testdata", name+".txt")
		if *rewrite {
			if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got.String() != string(want) {
			t.Errorf("%s is now (go test -rewrite accepts it):\n%s", path, &got)
		}
	}
}

func TestWhatWasNotMeasuredIsLeftOpen(t *testing.T) {
	r := exampleRun()
	r.Samples = nil
	var out strings.Builder
	Print(&out, r, false)
	if got := strings.Count(out.String(), " "+absent); got != 2*3*8 {
		t.Errorf("%d of 48 values are left open:\n%s", got, &out)
	}
}

func TestEveryMetricHasAPlotOfEverySystem(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plots")
	if err := Plots(dir, exampleRun()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"tcp1-gbps", "tcp1-retransmits", "tcp1-cpu-per-gbit", "udp64-kpps", "udp64-cpu-per-mpkt", "rtt-p50", "rtt-p99", "rtt-p999"} {
		svg, err := os.ReadFile(filepath.Join(dir, name+".svg"))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, text := range []string{">kernel-vxlan<", ">weft-vxlan/superpacket<", ">wireguard-go (encrypted)<", ">full<", ">bare<", svgFont + svgFontsAlike} {
			if !bytes.Contains(svg, []byte(text)) {
				t.Errorf("%s.svg has no %s", name, text)
			}
		}
	}
}

func TestColoursAreEnough(t *testing.T) {
	const planned = 1 // a driver more
	if n := len(system.All()) + len(system.Before()) + planned; n > len(palette) {
		t.Errorf("%d systems share %d colours", n, len(palette))
	}
	seen := map[string]bool{}
	for _, c := range palette {
		if seen[fmt.Sprint(c)] {
			t.Errorf("%v is there twice", c)
		}
		seen[fmt.Sprint(c)] = true
	}
}
