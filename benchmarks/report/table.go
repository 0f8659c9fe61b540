package report

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"weft/benchmarks/measure"
	"weft/benchmarks/result"
	"weft/benchmarks/system"
)

// absent stands for values of measurements that failed, or were never reached.
const absent = "–"

// table is lines of columns. The first is flush left, the others are flush right, each as
// wide as it needs to be.
type table struct{ lines [][]string }

// add adds a line. A title without columns may be longer than the first column.
func (t *table) add(title string, columns ...string) {
	t.lines = append(t.lines, append([]string{title}, columns...))
}

// addRows adds the metrics of the run, below the titles of their cells. values returns the
// columns of a row, in one line or more; of none, the row is left out.
func (t *table) addRows(r *result.Run, values func(row) (lines [][]string)) {
	cell := ""
	for _, row := range rows(r) {
		title := "  " + row.title()
		for _, columns := range values(row) {
			if row.cell.Name != cell {
				cell = row.cell.Name
				t.add(row.cell.Title)
			}
			t.add(title, columns...)
			title = ""
		}
	}
}

func (t *table) print(w io.Writer) {
	const gap = 3
	widths := map[int]int{}
	for _, line := range t.lines {
		for i, text := range line {
			if len(line) > 1 {
				widths[i] = max(widths[i], utf8.RuneCountInString(text))
			}
		}
	}
	for _, line := range t.lines {
		var text strings.Builder
		text.WriteString(line[0] + space(line[0], widths[0]))
		for i, column := range line[1:] {
			text.WriteString(space(column, widths[1+i]+gap) + column)
		}
		fmt.Fprintln(w, strings.TrimRight(text.String(), " "))
	}
}

// space is what text lacks of a width in characters.
func space(text string, width int) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

// each makes a column of each item.
func each[T any](items []T, text func(T) string) (columns []string) {
	for _, item := range items {
		columns = append(columns, text(item))
	}
	return columns
}

func systemName(s result.System) string   { return s.Name }
func profileName(p result.Profile) string { return p.Name }

// tables prints a table for each profile: medians with their ratio to the baseline,
// and under them the lowest and the highest value.
func tables(w io.Writer, r *result.Run) {
	for _, p := range r.Profiles {
		fmt.Fprintf(w, "\n%s: median ×ratio to %s, below it min–max\n", p.Name, r.Baseline)
		var t table
		t.add("", each(r.Systems, systemName)...)
		encrypted := each(r.Systems, func(s result.System) string { return map[bool]string{true: "encrypted"}[s.Encrypted] })
		if strings.Join(encrypted, "") != "" {
			t.add("", encrypted...)
		}
		t.addRows(r, func(row row) [][]string {
			return [][]string{
				each(r.Systems, func(s result.System) string { return median(r, row, p.Name, s.Name) }),
				each(r.Systems, func(s result.System) string { return ends(r, row, p.Name, s.Name) }),
			}
		})
		t.print(w)
	}
}

// tablesOfSystems prints a table for each system with the medians of all profiles.
func tablesOfSystems(w io.Writer, r *result.Run) {
	for _, s := range r.Systems {
		fmt.Fprintln(w)
		var t table
		t.add(s.Name+", nodes", each(r.Profiles, profileName)...)
		t.addRows(r, func(row row) [][]string {
			measured := false
			columns := each(r.Profiles, func(p result.Profile) string {
				text := median(r, row, p.Name, s.Name)
				measured = measured || text != absent
				return text
			})
			if !measured { // the system has no such thing
				return nil
			}
			return [][]string{columns}
		})
		t.print(w)
	}
}

// median is that of a value, with its ratio to the baseline if there is one.
func median(r *result.Run, row row, profile, system string) string {
	k := row.key(profile, system)
	spread := r.Spread(k)
	if spread.N == 0 {
		return absent
	}
	text := number(spread.Median, row.metric)
	// A ratio of counts that are mostly zero says nothing.
	if ratio := r.Ratio(k, r.Baseline); ratio.N > 0 && row.metric.Unit != "" {
		text += " ×" + factor(ratio.Median)
	}
	return text
}

// ends are the lowest and the highest value.
func ends(r *result.Run, row row, profile, system string) string {
	spread := r.Spread(row.key(profile, system))
	if spread.N == 0 {
		return ""
	}
	return number(spread.Min, row.metric) + "–" + number(spread.Max, row.metric)
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

// withEnds is a median with its lowest and highest value.
func withEnds(s result.Spread) string {
	switch s.N {
	case 0:
		return absent
	case 1:
		return factor(s.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", factor(s.Median), factor(s.Min), factor(s.Max))
}

// ratios prints, for each profile, only the ratios of pairs of systems: the median over the
// repeats, and the lowest and the highest.
func ratios(w io.Writer, r *result.Run, pairs []system.Pair) {
	fmt.Fprintln(w, "\nratios: median (min–max); ↑ more is better, ↓ less is better")
	var t table
	t.add("", each(r.Profiles, profileName)...)
	for _, pair := range pairs {
		t.add(pair.System + " ÷ " + pair.To)
		for _, row := range rows(r) {
			if row.metric.Unit == "" {
				continue
			}
			arrow := map[measure.Better]string{measure.Higher: "↑", measure.Lower: "↓"}[row.metric.Better]
			t.add(fmt.Sprintf("  %s %s, %s", arrow, row.cell.Name, row.metric.Title), each(r.Profiles, func(p result.Profile) string {
				return withEnds(r.Ratio(row.key(p.Name, pair.System), pair.To))
			})...)
		}
	}
	t.print(w)
}

// goals compares systems with what they are to reach, by the median over the repeats.
func goals(w io.Writer, r *result.Run, k kind) {
	if len(k.goals) == 0 {
		return
	}
	profile := r.Profiles[len(r.Profiles)-1].Name
	fmt.Fprintln(w)
	var t table
	t.add("goals of "+k.goalsOf, each(k.judged, systemName)...)
	for _, g := range k.goals {
		t.add(fmt.Sprintf("  %s, ≤ %g", g.Title, g.Max), each(k.judged, func(s result.System) string {
			key := result.Key{Profile: profile, System: s.Name, Cell: g.Cell, Metric: g.Metric}
			spread := r.Spread(key)
			if g.To != "" {
				spread = r.Ratio(key, g.To)
			}
			switch {
			case spread.N == 0:
				return absent
			case spread.Median <= g.Max:
				return withEnds(spread) + " met"
			}
			return withEnds(spread) + " MISSED"
		})...)
	}
	t.print(w)
}
