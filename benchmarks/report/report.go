// Package report shows the results of a run to people: as tables and as plots. It
// computes nothing that is not in package result.
package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"weft/benchmarks/measure"
	"weft/benchmarks/pods"
	"weft/benchmarks/result"
	"weft/benchmarks/scale"
)

// Environment prints what the run was taken on, and how.
func Environment(w io.Writer, r *result.Run) {
	hardware(w, r)
	fmt.Fprintf(w, "%s, %d repeats of %v, pods' MTU %d\n", r.Started.Format(time.DateTime), r.Repeat, r.Time, r.InnerMTU)
	fmt.Fprintf(w, "%s\n", measure.Explain())
	fmt.Fprintf(w, "load and systems share the processors; CPU is that of the whole machine\n")
	disturbances(w, r)
	offloads(w, r)
	warnOfTheft(w, r)
}

// hardware prints what machine it was, with which programs.
func hardware(w io.Writer, r *result.Run) {
	e := r.Environment
	fmt.Fprintf(w, "%s, %d cores, %.0f GB, Linux %s\n", e.CPU, e.Cores, e.MemoryGB, e.Kernel)
	for _, name := range slices.Sorted(maps.Keys(e.Versions)) {
		fmt.Fprintf(w, "%s: %s\n", name, e.Versions[name])
	}
}

func disturbances(w io.Writer, r *result.Run) {
	for _, why := range r.Environment.Disturbances() {
		fmt.Fprintf(w, "WARNING: the machine was not quiet: %s\n", why)
	}
}

func warnOfTheft(w io.Writer, r *result.Run) {
	if share := stolen(r); share > 0.01 {
		fmt.Fprintf(w, "WARNING: the hypervisor took %.1f %% of the processors' time\n", 100*share)
	}
}

// shownFeatures are those that tell the profiles apart, by the names of `ethtool -k`.
// The file of results has all.
var shownFeatures = []string{
	"tx-checksumming", "rx-checksumming", "tcp-segmentation-offload", "tx-udp-segmentation",
	"tx-udp_tnl-segmentation", "generic-segmentation-offload", "generic-receive-offload",
}

// offloads prints what the kernel says about the wires.
func offloads(w io.Writer, r *result.Run) {
	const column = 8
	perProfile := func(title string, text func(result.Profile) string) {
		l := newLine(title, titleWidth)
		for _, p := range r.Profiles {
			l.add(text(p), column)
		}
		l.print(w)
	}
	perProfile("offloads of the wire", func(p result.Profile) string { return p.Name })
	for _, feature := range shownFeatures {
		perProfile("  "+feature, func(p result.Profile) string {
			return map[bool]string{true: "on", false: "off"}[p.Features[feature]]
		})
	}
	perProfile("CPU used by idle systems, %", func(p result.Profile) string { return fmt.Sprintf("%.1f", 100*p.IdleShare) })
}

// stolen is the part of the time that the hypervisor took during measurements.
func stolen(r *result.Run) float64 {
	var steal, all float64
	for _, s := range r.Samples {
		steal += s.CPU.Steal
		all += s.CPU.Busy + s.CPU.Steal + s.CPU.Idle
	}
	if all == 0 {
		return 0
	}
	return steal / all
}

// row is a metric of a cell.
type row struct {
	cell   measure.Cell
	metric measure.Metric
}

// rows are the metrics that the run has.
func rows(r *result.Run) []row {
	var all []row
	for _, c := range slices.Concat(measure.All(), pods.Cells(), scale.Cells()) {
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
