// Package report shows the results of a run to people: as tables and as plots. It
// computes nothing that is not in package result.
package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"weft/benchmarks/machine"
	"weft/benchmarks/measure"
	"weft/benchmarks/pods"
	"weft/benchmarks/result"
	"weft/benchmarks/scale"
)

// kind is what the report of a run depends on.
type kind struct {
	about   string // besides its date
	explain string
	cells   []measure.Cell

	// goals are those of the systems judged, in the last profile.
	goals   []measure.Goal
	goalsOf string
	judged  []result.System

	tables  func(io.Writer, *result.Run)
	figures func(*result.Run) []figure
}

func kindOf(r *result.Run) kind {
	switch {
	case r.Pods > 0:
		return kind{
			about:   fmt.Sprintf("%d repeats with %d pods, pods' MTU %d", r.Repeat, r.Pods, r.InnerMTU),
			explain: pods.Explain, cells: pods.Cells(),
			goals: pods.Goals(), goalsOf: pods.Weft, judged: []result.System{{Name: pods.Weft}},
			tables: tables, figures: bars,
		}
	case len(r.Nodes) > 0:
		return kind{
			about: fmt.Sprintf("%d changes of each kind, idle for %v", r.Changes, r.Time),
			explain: scale.Explain + fmt.Sprintf("\nof the source %s each node has %d CIDRs, of the others 2; each has its endpoint's prefix besides",
				scale.File, r.CIDRs),
			cells: scale.Cells(),
			goals: scale.Goals(), goalsOf: fmt.Sprintf("weftd beside %d nodes", slices.Max(r.Nodes)), judged: r.Systems,
			tables: tablesOfSystems, figures: lines,
		}
	}
	return kind{
		about:   fmt.Sprintf("%d repeats of %v, pods' MTU %d", r.Repeat, r.Time, r.InnerMTU),
		explain: measure.Explain() + "\nload and systems share the processors; CPU is that of the whole machine",
		cells:   measure.All(),
		tables:  tables, figures: bars,
	}
}

// Print prints what the run was taken on, and how, and all that came of it; or of that
// only the ratios of its pairs of systems, if there are any.
func Print(w io.Writer, r *result.Run, onlyRatios bool) {
	k := kindOf(r)
	environment(w, r, k)
	if pairs := r.Compared(); onlyRatios && len(pairs) > 0 {
		ratios(w, r, pairs)
	} else {
		k.tables(w, r)
	}
	goals(w, r, k)
	drops(w, r)
	failures(w, r)
}

func environment(w io.Writer, r *result.Run, k kind) {
	e := r.Environment
	fmt.Fprintf(w, "%s, %d cores, %.0f GB, Linux %s\n", e.CPU, e.Cores, e.MemoryGB, e.Kernel)
	if e.Prices != (machine.Prices{}) {
		fmt.Fprintln(w, e.Prices)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Versions)) {
		fmt.Fprintf(w, "%s: %s\n", name, e.Versions[name])
	}
	fmt.Fprintf(w, "%s, %s\n%s\n", r.Started.Format(time.DateTime), k.about, k.explain)
	for _, why := range e.Disturbances() {
		fmt.Fprintf(w, "WARNING: the machine was not quiet: %s\n", why)
	}
	if share := stolen(r); share > 0.01 {
		fmt.Fprintf(w, "WARNING: the hypervisor took %.1f %% of the processors' time\n", 100*share)
	}
	if len(r.Profiles) > 0 && r.Profiles[0].Features != nil {
		offloads(w, r)
	}
}

// stolen is the part of the time that the hypervisor took during measurements.
func stolen(r *result.Run) float64 {
	var all machine.CPU
	for _, s := range r.Samples {
		all = all.Plus(s.CPU)
	}
	return machine.CPU{Busy: all.Steal, Idle: all.Busy + all.Idle}.Share()
}

// shownFeatures are those that tell the profiles apart, by the names of `ethtool -k`.
// The file of results has all.
var shownFeatures = []string{
	"tx-checksumming", "rx-checksumming", "tcp-segmentation-offload", "tx-udp-segmentation",
	"tx-udp_tnl-segmentation", "generic-segmentation-offload", "generic-receive-offload",
}

// offloads prints what the kernel says about the wires.
func offloads(w io.Writer, r *result.Run) {
	var t table
	perProfile := func(title string, text func(result.Profile) string) {
		t.add(title, each(r.Profiles, text)...)
	}
	perProfile("offloads of the wire", profileName)
	for _, feature := range shownFeatures {
		perProfile("  "+feature, func(p result.Profile) string {
			return map[bool]string{true: "on", false: "off"}[p.Features[feature]]
		})
	}
	perProfile("CPU used by idle systems, %", func(p result.Profile) string { return fmt.Sprintf("%.1f", 100*p.IdleShare) })
	t.print(w)
}

// row is a metric of a cell.
type row struct {
	cell   measure.Cell
	metric measure.Metric
}

// rows are the metrics that the run has.
func rows(r *result.Run) []row {
	var all []row
	for _, c := range kindOf(r).cells {
		if !slices.Contains(r.Cells, c.Name) {
			continue
		}
		for _, m := range c.Metrics {
			all = append(all, row{c, m})
		}
	}
	return all
}

func (r row) key(profile, system string) result.Key {
	return result.Key{Profile: profile, System: system, Cell: r.cell.Name, Metric: r.metric.Key}
}

func (r row) title() string {
	title := r.metric.Title
	if r.metric.Unit != "" {
		title += ", " + r.metric.Unit
	}
	return title
}
