package report

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"weft/benchmarks/machine"
	"weft/benchmarks/measure"
	"weft/benchmarks/result"
	"weft/benchmarks/scale"
)

// exampleScale has two numbers of nodes. One goal is missed, and one source has failed
// beside the larger number.
func exampleScale() *result.Run {
	r := &result.Run{
		Started: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Repeat: 1,
		Environment: machine.Environment{
			Kernel: "6.18.0 x86_64", CPU: "Example CPU", Cores: 2, MemoryGB: 24,
			Versions: map[string]string{"etcd": "etcd Version: 3.4.23"},
		},
		Nodes: []int{100, 5000}, CIDRs: 30, Changes: 50, Time: 40 * time.Second,
	}
	for _, c := range scale.Cells() {
		r.Cells = append(r.Cells, c.Name)
	}
	for _, name := range scale.Sources() {
		r.Systems = append(r.Systems, result.System{Name: name})
	}
	for _, n := range r.Nodes {
		r.Profiles = append(r.Profiles, result.Profile{Name: scale.Profile(n)})
		for _, source := range scale.Sources() {
			if n == 5000 && source == scale.Kubernetes {
				r.Samples = append(r.Samples, result.Sample{Profile: scale.Profile(n), System: source, Cell: scale.Start, Error: "no API server answers"})
				continue
			}
			r.Samples = append(r.Samples, exampleCells(n, source)...)
		}
	}
	return r
}

func exampleCells(nodes int, source string) (samples []result.Sample) {
	for _, c := range scale.Cells() {
		if source == scale.File && (c.Name == scale.Join || c.Name == scale.Leave || c.Name == scale.Mass) {
			continue
		}
		s := result.Sample{Profile: scale.Profile(nodes), System: source, Cell: c.Name, Values: measure.Values{}}
		for i, m := range c.Metrics {
			s.Values[m.Key] = float64((i + 1) * nodes / 100)
		}
		if slices.Contains(scale.Changes(), c.Name) {
			s.Calls = map[string][]float64{c.Name: {40, 50, 60}}
			s.Values[scale.P50], s.Values[scale.P99] = 0.05, 0.06
		}
		samples = append(samples, s)
	}
	return samples
}

func TestPlotsOverTheNumberOfNodesHaveEverySource(t *testing.T) {
	one := exampleScale()
	one.Nodes = one.Nodes[:1]
	for name, r := range map[string]*result.Run{"two numbers of nodes": exampleScale(), "one": one} {
		dir := filepath.Join(t.TempDir(), "plots")
		if err := Plots(dir, r); err != nil {
			t.Fatal(err)
		}
		for file, texts := range map[string][]string{
			"scale-change": {">etcd, p99<", ">kubernetes, p50<", ">goal: 1 s<", ">100<"},
			"scale-memory": {">etcd, at most<", ">file, 30 CIDRs a node, idle<", ">goal: 150 MB<"},
			"scale-idle":   {">etcd<", ">kubernetes<", ">file, 30 CIDRs a node<"},
		} {
			svg, err := os.ReadFile(filepath.Join(dir, file+".svg"))
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range append(texts, svgFont+svgFontsAlike) {
				if !bytes.Contains(svg, []byte(text)) {
					t.Errorf("%s: %s.svg has no %s", name, file, text)
				}
			}
		}
	}
}
