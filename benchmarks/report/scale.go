package report

import (
	"fmt"
	"io"
	"slices"
	"time"

	"weft/benchmarks/result"
	"weft/benchmarks/scale"
)

// Scale prints a run with weftd beside thousands of nodes: the tables, and how far the goals
// are reached.
func Scale(w io.Writer, r *result.Run) {
	hardware(w, r)
	fmt.Fprintf(w, "%s, %d changes of each kind, idle for %v\n%s\nof the source %s each node has %d CIDRs, of the others 2; each has its endpoint's prefix besides\n",
		r.Started.Format(time.DateTime), r.Changes, r.Time, scale.Explain, scale.File, r.CIDRs)
	disturbances(w, r)
	warnOfTheft(w, r)
	for _, s := range r.Systems {
		scaleTable(w, r, s.Name)
	}
	scaleGoals(w, r)
	failures(w, r)
}

const scaleWidth = 10 // of a column

// scaleTable has a column for each number of nodes.
func scaleTable(w io.Writer, r *result.Run, source string) {
	fmt.Fprintln(w)
	l := newLine(source+", nodes", titleWidth)
	for _, p := range r.Profiles {
		l.add(p.Name, scaleWidth)
	}
	l.print(w)
	cell := ""
	for _, row := range rows(r) {
		l, measured := newLine("  "+row.title(), titleWidth), false
		for _, p := range r.Profiles {
			text := absent
			if spread := r.Spread(row.key(p.Name, source)); spread.N > 0 {
				text, measured = number(spread.Median, row.metric), true
			}
			l.add(text, scaleWidth)
		}
		if !measured { // the source has no such thing
			continue
		}
		if row.cell.Name != cell {
			cell = row.cell.Name
			fmt.Fprintln(w, row.cell.Title)
		}
		l.print(w)
	}
}

// scaleGoals compares weftd beside the most nodes with what it is to reach.
func scaleGoals(w io.Writer, r *result.Run) {
	most := scale.Profile(slices.Max(r.Nodes))
	fmt.Fprintln(w)
	heading := newLine(fmt.Sprintf("goals with %s nodes", most), goalWidth)
	for _, s := range r.Systems {
		heading.add(s.Name, columnWidth)
	}
	heading.print(w)
	for _, g := range scale.Goals() {
		l := newLine(fmt.Sprintf("  %s, ≤ %g", g.Title, g.Max), goalWidth)
		for _, s := range r.Systems {
			text := absent
			if spread := r.Spread(result.Key{Profile: most, System: s.Name, Cell: g.Cell, Metric: g.Metric}); spread.N > 0 {
				text = factor(spread.Median) + " " + verdict(spread.Median <= g.Max)
			}
			l.add(text, columnWidth)
		}
		l.print(w)
	}
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "MISSED"
}
