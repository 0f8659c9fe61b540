package report

import (
	"fmt"
	"io"
	"time"

	"weft/benchmarks/pods"
	"weft/benchmarks/result"
)

// Pods prints a run that attached pods: the tables, and how far the goals are reached.
func Pods(w io.Writer, r *result.Run) {
	hardware(w, r)
	fmt.Fprintf(w, "%s, %d repeats with %d pods, pods' MTU %d\n%s\n",
		r.Started.Format(time.DateTime), r.Repeat, r.Pods, r.InnerMTU, pods.Explain)
	disturbances(w, r)
	warnOfTheft(w, r)
	Tables(w, r)
	goals(w, r)
}

const goalWidth = 56

// goals compares weft with what it is to reach, by the median over the repeats.
func goals(w io.Writer, r *result.Run) {
	fmt.Fprintf(w, "\ngoals of %s\n", pods.Weft)
	for _, g := range pods.Goals() {
		k := result.Key{Profile: pods.Profile, System: pods.Weft, Cell: g.Cell, Metric: g.Metric}
		spread := r.Spread(k)
		if g.To != "" {
			spread = r.Ratio(k, g.To)
		}
		l := newLine("  "+g.Title, goalWidth)
		if spread.N == 0 {
			l.add(absent, columnWidth)
		} else {
			l.add(fmt.Sprintf("%s (%s–%s)", factor(spread.Median), factor(spread.Min), factor(spread.Max)), columnWidth)
			l.add(fmt.Sprintf("≤ %g", g.Max), 8)
			l.add(verdict(spread.Median <= g.Max), 8)
		}
		l.print(w)
	}
}
