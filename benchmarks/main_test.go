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
