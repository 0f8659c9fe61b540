package pods

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"weft/benchmarks/result"
)

// built is the folder of weft-cni, on a disk.
var built string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	var err error
	if built, err = os.MkdirTemp("/var/tmp", "weft-bench-pods-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(built)
	build := exec.Command("go", "build", "-o", built+"/", "weft/cmd/weft-cni")
	build.Dir = "../.." // of another module
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build weft-cni: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// start makes the nodes, which live as long as the test.
func start(t *testing.T, others string) []*Node {
	t.Helper()
	site, err := Start(t.Context(), Programs{Weft: built, Others: others}, built)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := site.Close(); err != nil {
			t.Error(err)
		}
		left, err := filepath.Glob(filepath.Join(built, "state-*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
	return site.Nodes
}

const debian = "/usr/lib/cni"

// requireAll fails unless the sample has a value for each metric of its cell.
func requireAll(t *testing.T, o result.Sample) {
	t.Helper()
	if o.Failed() {
		t.Errorf("%s: %v", o.Cell, o.Error)
	}
	for _, c := range Cells() {
		for _, m := range c.Metrics {
			// CPU time is counted in steps of 10 ms.
			if value, ok := o.Values[m.Key]; c.Name == o.Cell && m.Key != "add_cpu" && (!ok || value <= 0) {
				t.Errorf("%s: %s is %v", o.Cell, m.Key, value)
			}
		}
	}
}

func TestEverySystemAttachesPodsAndIsMeasured(t *testing.T) {
	const count = 5
	nodes := start(t, debian)
	oneByOne, err := MeasureOneByOne(t.Context(), nodes, count)
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range nodes {
		requireAll(t, oneByOne[i])
		samples, err := MeasureAtOnce(t.Context(), n, count, 3)
		if err != nil {
			t.Fatal(err)
		}
		cells := []string{AtOnce}
		if n.System == Weft {
			cells = append(cells, Status)
		}
		if len(samples) != len(cells) {
			t.Fatalf("%s: there are %d samples, want %v", n.System, len(samples), cells)
		}
		for i, s := range samples {
			if requireAll(t, s); s.Cell != cells[i] || s.System != n.System {
				t.Errorf("%s: got %s of %s, want %s", n.System, s.Cell, s.System, cells[i])
			}
		}
		if calls := len(samples[0].Calls[add]); calls != count {
			t.Errorf("%s: %d calls", n.System, calls)
		}
	}
}

func TestFailingPluginStopsNoOther(t *testing.T) {
	broken := t.TempDir()
	for _, plugin := range []string{"bridge", "ptp"} {
		if err := os.Symlink("/bin/false", filepath.Join(broken, plugin)); err != nil {
			t.Fatal(err)
		}
	}
	nodes := start(t, broken)
	oneByOne, err := MeasureOneByOne(t.Context(), nodes, 2)
	if err != nil {
		t.Fatal(err)
	}
	for i, n := range nodes {
		if n.System == Weft {
			requireAll(t, oneByOne[i])
			continue
		}
		atOnce, err := MeasureAtOnce(t.Context(), n, 2, 0)
		for _, s := range append(atOnce, oneByOne[i]) {
			if !strings.Contains(s.Error, "ADD of pod-0 by "+n.System) || s.Values != nil || err != nil {
				t.Errorf("%s: got %v, %v, %v", n.System, s.Values, s.Error, err)
			}
		}
	}
}

// attached returns pods on weft's node that are attached.
func attached(t *testing.T, count int) *batch {
	t.Helper()
	nodes := start(t, debian)
	b, err := newBatch(nodes[len(nodes)-1], count)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(b.abandon(), b.remove()); err != nil {
			t.Error(err)
		}
	})
	s := b.node.sample(AtOnce)
	if b.allAtOnce(t.Context(), add, &s); s.Failed() {
		t.Fatal(s.Error)
	}
	return b
}

func TestPodsThatAreNotWhatThePluginSaysAreNoticed(t *testing.T) {
	b := attached(t, 2)
	if err := b.verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, second := b.pods[0], b.pods[1]
	told := first.result
	for name, result := range map[string]string{
		"an address of another pod":  string(second.result),
		"one address":                `{"ips": [{"address": "10.244.1.2/32"}]}`,
		"an address of another node": strings.ReplaceAll(string(told), "10.244.1.", "10.244.2."),
		"no result":                  ``,
	} {
		first.result = []byte(result)
		if err := b.verify(t.Context()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	first.result = told
	if _, err := first.node.Exec(t.Context(), "ip", "link", "set", "group", "93", "down"); err != nil {
		t.Fatal(err)
	}
	if err := b.verify(t.Context()); err == nil || !strings.Contains(err.Error(), "reach pod-1") {
		t.Errorf("got %v", err)
	}
}

func TestStateInMemoryIsRefused(t *testing.T) {
	if err := requireDisk("/dev/shm"); err == nil {
		t.Error("/dev/shm is taken for a disk")
	}
	if err := requireDisk(built); err != nil {
		t.Error(err)
	}
}

func TestSummaries(t *testing.T) {
	s := new(Node).sample(AtOnce)
	s.Calls[add] = []float64{1, 2, 3, 40}
	summarize(add, &s)
	if s.Values[AddP50] != 2 || s.Values["add_p99"] != 40 || s.Values["add_p10"] != 1 {
		t.Errorf("got %v", s.Values)
	}
	s.Fail(errors.New("no"))
	if summarize(status, &s); s.Values != nil {
		t.Errorf("a failure has %v", s.Values)
	}
}

func TestNoSystemIsAlwaysFirstOrAlwaysAfterTheSame(t *testing.T) {
	first, after := map[int]int{}, map[[2]int]int{}
	for round := range 6 {
		order := turn(round, 3)
		first[order[0]]++
		for i, j := range order[1:] {
			after[[2]int{order[i], j}]++
		}
	}
	for i := range 3 {
		for j := range 3 {
			if i != j && after[[2]int{i, j}] != 2 || first[i] != 2 {
				t.Errorf("%d is first %d times, and %d times before %d", i, first[i], after[[2]int{i, j}], j)
			}
		}
	}
}

func TestGoalsAreAboutMetricsThatExist(t *testing.T) {
	for _, g := range Goals() {
		found := false
		for _, c := range Cells() {
			for _, m := range c.Metrics {
				found = found || c.Name == g.Cell && m.Key == g.Metric
			}
		}
		if !found {
			t.Errorf("%s: no metric %s of %s", g.Title, g.Metric, g.Cell)
		}
	}
}
