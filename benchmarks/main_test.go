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

	"github.com/spf13/pflag"

	"weft/benchmarks/measure"
	"weft/benchmarks/result"
	"weft/benchmarks/scale"
	"weft/benchmarks/system"
	"weft/internal/config"
)

// programs makes a folder that looks as if everything had been built.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bench"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"weftd", "weft-cni", "bench/podload", "bench/wireguard-go", "bench/nebula", "bench/nebula-cert", "bench/floor", "bridge", "ptp", "host-local"} {
		if err := os.WriteFile(filepath.Join(dir, program), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// parse parses flags, for programs in a folder.
func parse(s suite, bin string, args ...string) (*bencher, error) {
	b := &bencher{name: "it", suite: s}
	return b, b.parse(append([]string{"-bin", bin}, args...))
}

func TestFlagsChooseWhatIsMeasured(t *testing.T) {
	s := everything()
	b, err := parse(s, programs(t), "-profiles", "bare,full", "-systems", "wireguard-go,kernel-vxlan", "-cells", "rtt,tcp1", "-repeat", "3", "-time", "2s")
	if err != nil {
		t.Fatal(err)
	}
	names := measure.Names(s.chosenCells())
	for _, system := range s.chosenSystems() {
		names = append(names, system.Name)
	}
	if want := []string{"tcp1", "rtt", "kernel-vxlan", "wireguard-go"}; !slices.Equal(names, want) {
		t.Errorf("chosen are %v", names)
	}
	if !slices.Equal(s.profiles, []string{"bare", "full"}) || s.repeat != 3 || s.time != 2*time.Second || !strings.HasSuffix(b.out, ".json") {
		t.Errorf("got %+v, %+v", b, s)
	}
}

func TestQuickStaysShort(t *testing.T) {
	s := theRatios()
	if estimate := s.estimate(); estimate > 3*time.Minute {
		t.Errorf("it takes %v", estimate)
	}
}

func TestQuickMeasuresEveryPair(t *testing.T) {
	s := theRatios()
	if _, err := parse(s, programs(t), "-before", programs(t)); err != nil {
		t.Fatal(err)
	}
	r := &result.Run{Pairs: system.Pairs()}
	for _, chosen := range s.chosenSystems() {
		r.Systems = append(r.Systems, result.System{Name: chosen.Name})
	}
	if got := r.Compared(); !slices.Equal(got, system.Pairs()) {
		t.Errorf("it compares %v", got)
	}
	if installed := system.WeftVXLAN(defaultDriver()); !slices.Contains(s.systems, installed) {
		t.Errorf("%s is not in %v", installed, s.systems)
	}
}

// defaultDriver is the TUN driver that weftd uses unless a flag says otherwise.
func defaultDriver() string {
	flags := pflag.NewFlagSet("weftd", pflag.ContinueOnError)
	config.AddFlags(flags)
	return flags.Lookup("tun-driver").Value.String()
}

func TestAnotherVersionIsMeasuredIfThereIsOne(t *testing.T) {
	without, with := theRatios(), theRatios()
	if _, err := parse(without, programs(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := parse(with, programs(t), "-before", programs(t)); err != nil {
		t.Fatal(err)
	}
	if more := len(with.chosenSystems()) - len(without.chosenSystems()); more != 2 || with.programs().Before == "" {
		t.Errorf("%d systems more, of %q", more, with.programs().Before)
	}
}

func TestEachSystemAddsAQuarterOfAnHour(t *testing.T) {
	s := everything()
	if perSystem := s.estimate() / time.Duration(len(s.chosenSystems())); perSystem > 15*time.Minute {
		t.Errorf("each system adds %v", perSystem)
	}
}

// TestWhatCannotBeMeasuredIsRefused has, for each suite, flags that it takes, and others
// that it does not take beside them.
func TestWhatCannotBeMeasuredIsRefused(t *testing.T) {
	bin := programs(t)
	here := []string{"-manifests", "../deploy/kubernetes/rights", "-sources", "file"}
	for name, tt := range map[string]struct {
		new   func() suite
		taken []string
		wrong [][]string
	}{
		"run": {func() suite { return everything() }, nil, [][]string{{"-repeat", "0"}, {"-time", "1ms"}, {"now"}, {"-bin", t.TempDir()}, {"-before", t.TempDir()}}},
		"pods": {func() suite { return new(podsSuite) }, []string{"-plugins", bin}, [][]string{
			{"-pods", "0"}, {"-pods", "254"}, {"-repeat", "0"}, {"-status", "0"}, {"now"}, {"-plugins", t.TempDir()}, {"-bin", t.TempDir()}}},
		"scale": {func() suite { return new(scaleSuite) }, here, [][]string{
			{"-cidrs", "3"}, {"-cidrs", "0"}, {"-cidrs", "102"}, {"-nodes", "10000", "-cidrs", "60"},
			{"-changes", "0"}, {"-starts", "0"}, {"-idle", "1ms"}, {"now"}, {"-bin", t.TempDir()},
			{"-sources", "kubernetes"}}}, // without an API server
	} {
		if b, err := parse(tt.new(), bin, tt.taken...); err != nil || !filepath.IsAbs(b.out) {
			t.Errorf("%s: got %+v, %v", name, b, err)
		}
		for _, args := range tt.wrong {
			if _, err := parse(tt.new(), bin, append(slices.Clone(tt.taken), args...)...); !errors.As(err, new(usage)) {
				t.Errorf("%s: %v: got %v", name, args, err)
			}
		}
	}
	for _, text := range []string{"", "0", "100,x", "10001", "100,"} {
		if numbers, err := parseNodes(text); err == nil {
			t.Errorf("-nodes %q: got %v", text, numbers)
		}
	}
	if numbers, err := parseNodes("50,7,50"); err != nil || !slices.Equal(numbers, []int{7, 50}) {
		t.Errorf("got %v, %v", numbers, err)
	}
}

func TestExitStatus(t *testing.T) {
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

// TestScaleMeasuresEverySource is a run with few nodes, from the flags to the plots.
func TestScaleMeasuresEverySource(t *testing.T) {
	out, plots := filepath.Join(t.TempDir(), "scale.json"), t.TempDir()
	err := bench(t.Context(), []string{"scale", "-bin", "../bin", "-manifests", "../deploy/kubernetes/rights", "-out", out, "-plots", plots,
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
