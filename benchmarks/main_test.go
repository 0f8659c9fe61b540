package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/benchmarks/result"
	"weft/benchmarks/scale"
	"weft/benchmarks/system"
)

// programs makes a folder that looks as if everything had been built.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bench"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"weftd", "weft-cni", "bench/podload", "bench/wireguard-go"} {
		if err := os.WriteFile(filepath.Join(dir, program), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFlagsChooseWhatIsMeasured(t *testing.T) {
	o := fullOptions()
	err := o.parse([]string{"-bin", programs(t), "-profiles", "bare,full", "-systems", "wireguard-go,kernel-vxlan", "-cells", "rtt,tcp1", "-repeat", "3", "-time", "2s"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range o.chosenSystems() {
		names = append(names, s.Name)
	}
	for _, c := range o.chosenCells() {
		names = append(names, c.Name)
	}
	if want := []string{"kernel-vxlan", "wireguard-go", "tcp1", "rtt"}; !slices.Equal(names, want) {
		t.Errorf("chosen are %v", names)
	}
	if !slices.Equal(o.profiles, []string{"bare", "full"}) || o.repeat != 3 || o.time != 2*time.Second || !strings.HasSuffix(o.out, ".json") {
		t.Errorf("got %+v", o)
	}
}

func TestWhatCannotBeMeasuredIsRefused(t *testing.T) {
	bin := programs(t)
	for _, args := range [][]string{
		{"-bin", bin, "-repeat", "0"}, {"-bin", bin, "-time", "1ms"}, {"-bin", bin, "now"}, {"-bin", t.TempDir()},
	} {
		if err := fullOptions().parse(args); !errors.As(err, new(usage)) {
			t.Errorf("%v: got %v", args, err)
		}
	}
}

func TestQuickComparesTheDefaultDriverAndStaysShort(t *testing.T) {
	o := quickOptions()
	b := &bencher{options: o, systems: o.chosenSystems(), cells: o.chosenCells()}
	if len(b.systems) != 2 || b.systems[0].Name != system.Baseline || !strings.HasPrefix(b.systems[1].Name, "weft-vxlan/") {
		t.Errorf("it compares %v", o.systems)
	}
	if estimate := b.estimate(); b.total() != 24 || estimate > time.Minute {
		t.Errorf("%d measurements take %v", b.total(), estimate)
	}
}

func TestTheFullRunTakesAboutAnHour(t *testing.T) {
	o := fullOptions()
	b := &bencher{options: o, systems: o.chosenSystems(), cells: o.chosenCells()}
	if perSystem := b.estimate() / time.Duration(len(b.systems)); perSystem > 15*time.Minute {
		t.Errorf("each system adds %v", perSystem)
	}
}

func TestWhatPodsCannotMeasureIsRefused(t *testing.T) {
	bin := programs(t)
	others := []string{"-bin", bin, "-plugins", bin}
	for _, plugin := range []string{"bridge", "ptp", "host-local"} {
		var o podsOptions
		if err := o.parse(others); !errors.As(err, new(usage)) {
			t.Errorf("without %s: got %v", plugin, err)
		}
		if err := os.WriteFile(filepath.Join(bin, plugin), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var o podsOptions
	if err := o.parse(others); err != nil || o.pods != 110 || o.repeat != 5 || !filepath.IsAbs(o.out) {
		t.Errorf("got %+v, %v", o, err)
	}
	for _, args := range [][]string{{"-pods", "0"}, {"-pods", "254"}, {"-repeat", "0"}, {"-status", "0"}, {"now"}} {
		var o podsOptions
		if err := o.parse(append(others, args...)); !errors.As(err, new(usage)) {
			t.Errorf("%v: got %v", args, err)
		}
	}
}

func TestExitStatusTellsWhatHappened(t *testing.T) {
	ended, end := context.WithCancel(t.Context())
	end()
	for name, tt := range map[string]struct {
		ctx  context.Context
		err  error
		want int
	}{
		"success":     {t.Context(), nil, 0},
		"failure":     {t.Context(), errors.New("no"), exitFailure},
		"usage":       {t.Context(), bench(t.Context(), []string{"walk"}), exitUsage},
		"interrupted": {ended, context.Canceled, exitInterrupted},
	} {
		if got := exitStatus(tt.ctx, tt.err); got != tt.want {
			t.Errorf("%s: exit status %d", name, got)
		}
	}
}

func TestWhatScaleCannotMeasureIsRefused(t *testing.T) {
	bin := programs(t)
	here := []string{"-bin", bin, "-manifests", "../deploy/kubernetes"}
	var o scaleOptions
	if err := o.parse(here); !errors.As(err, new(usage)) || !strings.Contains(err.Error(), "make kubernetes-build") {
		t.Errorf("without an API server: got %v", err)
	}
	o = scaleOptions{}
	if err := o.parse(append(here, "-sources", "file,etcd", "-nodes", "50,7,50")); err != nil || !slices.Equal(o.nodes, []int{7, 50}) || !filepath.IsAbs(o.out) {
		t.Errorf("got %+v, %v", o, err)
	}
	for _, args := range [][]string{
		{"-cidrs", "3"}, {"-cidrs", "0"}, {"-cidrs", "102"}, {"-nodes", "10000", "-cidrs", "60"},
		{"-changes", "0"}, {"-starts", "0"}, {"-idle", "1ms"}, {"now"},
	} {
		var o scaleOptions
		if err := o.parse(append(append(here, "-sources", "file"), args...)); !errors.As(err, new(usage)) {
			t.Errorf("%v: got %v", args, err)
		}
	}
	for _, text := range []string{"", "0", "100,x", "10001", "100,"} {
		if numbers, err := parseNodes(text); err == nil {
			t.Errorf("-nodes %q: got %v", text, numbers)
		}
	}
}

// TestScaleMeasuresEverySource is a run with few nodes, from the flags to the plots.
func TestScaleMeasuresEverySource(t *testing.T) {
	out, plots := filepath.Join(t.TempDir(), "scale.json"), t.TempDir()
	err := bench(t.Context(), []string{"scale", "-bin", "../bin", "-manifests", "../deploy/kubernetes", "-out", out, "-plots", plots,
		"-nodes", "50", "-changes", "3", "-starts", "1", "-idle", "100ms"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := result.Load(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range scale.Sources() {
		for _, cell := range scale.Cells() {
			if source == scale.File && slices.Contains([]string{scale.Join, scale.Leave, scale.Mass}, cell.Name) {
				continue
			}
			for _, m := range cell.Metrics {
				if source == scale.File && m.Key == scale.Cold {
					continue
				}
				k := result.Key{Profile: scale.Profile(50), System: source, Cell: cell.Name, Metric: m.Key}
				if r.Spread(k).N != 1 {
					t.Errorf("%s, %s: there is no %s", source, cell.Name, m.Key)
				}
			}
		}
		// The endpoint's prefix, and those of the real node, are in the FIB too.
		want := map[string]float64{scale.File: 50*31 + 3}[source]
		if want == 0 {
			want = 50*3 + 3
		}
		if got := r.Spread(result.Key{Profile: scale.Profile(50), System: source, Cell: scale.Idle, Metric: scale.Prefixes}).Median; got != want {
			t.Errorf("%s: there are %v prefixes, want %v", source, got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(plots, "scale-change.svg")); err != nil {
		t.Error(err)
	}
}
