package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"weft/benchmarks/measure"
	"weft/benchmarks/result"
	"weft/benchmarks/system"
)

const (
	titleWidth  = 33
	columnWidth = 17 // at least; wider than the system's name
)

// absent stands for values of measurements that failed, or were never reached.
const absent = "–"

// Tables prints a table for each profile: medians with their ratio to the baseline,
// and under them the lowest and the highest value.
func Tables(w io.Writer, r *result.Run) {
	for _, p := range r.Profiles {
		fmt.Fprintf(w, "\n%s: median ×ratio to %s, below it min–max\n", p.Name, r.Baseline)
		table(w, r, p.Name)
	}
	drops(w, r)
	failures(w, r)
}

func table(w io.Writer, r *result.Run, profile string) {
	heading, notes := newLine("", titleWidth), newLine("", titleWidth)
	for _, s := range r.Systems {
		heading.add(s.Name, width(s))
		notes.add(map[bool]string{true: "encrypted"}[s.Encrypted], width(s))
	}
	heading.print(w)
	if slices.ContainsFunc(r.Systems, func(s result.System) bool { return s.Encrypted }) {
		notes.print(w)
	}
	cell := ""
	for _, row := range rows(r) {
		if row.cell.Name != cell {
			cell = row.cell.Name
			fmt.Fprintln(w, row.cell.Title)
		}
		medians, ends := newLine("  "+row.title(), titleWidth), newLine("", titleWidth)
		for _, s := range r.Systems {
			median, end := texts(r, row, profile, s.Name)
			medians.add(median, width(s))
			ends.add(end, width(s))
		}
		medians.print(w)
		ends.print(w)
	}
}

// texts are the two lines of one value.
func texts(r *result.Run, row row, profile, name string) (median, ends string) {
	k := row.key(profile, name)
	spread := r.Spread(k)
	if spread.N == 0 {
		return absent, ""
	}
	median = number(spread.Median, row.metric)
	// A ratio of counts that are mostly zero says nothing.
	if ratio := r.Ratio(k, r.Baseline); ratio.N > 0 && row.metric.Unit != "" {
		median += " ×" + factor(ratio.Median)
	}
	return median, number(spread.Min, row.metric) + "–" + number(spread.Max, row.metric)
}

// number leaves decimals out where they mean nothing.
func number(value float64, m measure.Metric) string {
	digits := m.Digits
	if value >= 1000 {
		digits = 0
	}
	return fmt.Sprintf("%.*f", digits, value)
}

func factor(ratio float64) string {
	if ratio >= 10 {
		return fmt.Sprintf("%.1f", ratio)
	}
	return fmt.Sprintf("%.2f", ratio)
}

// Ratios prints, for each profile, only the ratios to the baseline: the median over
// the repeats, and the lowest and the highest.
func Ratios(w io.Writer, r *result.Run) {
	fmt.Fprintf(w, "\nratio to %s: median (min–max); ↑ more is better, ↓ less is better\n", r.Baseline)
	heading := newLine("", titleWidth)
	for _, p := range r.Profiles {
		heading.add(p.Name, ratioWidth)
	}
	heading.print(w)
	for _, s := range r.Systems {
		if s.Name == r.Baseline {
			continue
		}
		fmt.Fprintln(w, s.Name)
		for _, row := range rows(r) {
			if row.metric.Unit == "" {
				continue
			}
			ratioLine(r, row, s.Name).print(w)
		}
	}
	drops(w, r)
	failures(w, r)
}

const ratioWidth = 20

func ratioLine(r *result.Run, row row, name string) *line {
	arrow := map[measure.Better]string{measure.Higher: "↑", measure.Lower: "↓"}[row.metric.Better]
	l := newLine(fmt.Sprintf("  %s %s, %s", arrow, row.cell.Name, row.metric.Title), titleWidth)
	for _, p := range r.Profiles {
		text := absent
		if ratio := r.Ratio(row.key(p.Name, name), r.Baseline); ratio.N > 0 {
			text = fmt.Sprintf("%s (%s–%s)", factor(ratio.Median), factor(ratio.Min), factor(ratio.Max))
		}
		l.add(text, ratioWidth)
	}
	return l
}

// drops tells which packets systems themselves lost, and why.
func drops(w io.Writer, r *result.Run) {
	var lines []string
	for _, p := range r.Profiles {
		for _, s := range r.Systems {
			for _, counter := range dropCounters(r) {
				if where := dropsBy(r, p.Name, s.Name, counter); where != "" {
					lines = append(lines, fmt.Sprintf("  %s, %s, %s:%s", p.Name, s.Name, dropTitle(counter), where))
				}
			}
		}
	}
	if len(lines) > 0 {
		fmt.Fprintf(w, "\npackets lost inside of systems, in all repeats (a source at full speed sends more than any takes)\n%s\n",
			strings.Join(lines, "\n"))
	}
}

// dropsBy lists how many a counter counted in each cell.
func dropsBy(r *result.Run, profile, name, counter string) (list string) {
	for _, cell := range r.Cells {
		if total := r.Total(profile, name, cell, counter); total > 0 {
			list += fmt.Sprintf(" %s %d", cell, total)
		}
	}
	return list
}

// dropCounters are the counters of the run that count drops.
func dropCounters(r *result.Run) []string {
	found := map[string]bool{}
	for _, s := range r.Samples {
		for counter := range s.Counters {
			if dropTitle(counter) != "" {
				found[counter] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// dropTitle says what a counter counts; nothing if it does not count drops.
func dropTitle(counter string) string {
	switch counter {
	case system.DeviceDrops:
		return "queue of the device full"
	case system.NodeSocketDrops:
		return "socket of the overlay full"
	}
	reason, _ := system.DropReason(counter)
	return reason
}

// failures tells of measurements that gave no values.
func failures(w io.Writer, r *result.Run) {
	for _, s := range r.Samples {
		if s.Error != "" {
			fmt.Fprintf(w, "\nFAILED: %s, %s, %s, repeat %d: %s\n", s.Profile, s.System, s.Cell, s.Repeat+1, s.Error)
		}
	}
}

func width(s result.System) int { return max(columnWidth, len(s.Name)+2) }
