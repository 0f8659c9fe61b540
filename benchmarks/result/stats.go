package result

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"weft/benchmarks/system"
)

// Key says what was measured where.
type Key struct{ Profile, System, Cell, Metric string }

// Spread is the middle and the ends of a few values.
type Spread struct {
	Median, Min, Max float64
	N                int
}

// Summarize returns the spread of values. Of none, it is zero.
func Summarize(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	half := len(sorted) / 2
	median := sorted[half]
	if len(sorted)%2 == 0 {
		median = (sorted[half-1] + sorted[half]) / 2
	}
	return Spread{Median: median, Min: sorted[0], Max: sorted[len(sorted)-1], N: len(sorted)}
}

// Percentile returns the smallest of values that p percent of them do not exceed. Of
// none, it is zero.
func Percentile[T cmp.Ordered](values []T, p float64) (zero T) {
	if len(values) == 0 {
		return zero
	}
	rank := int(math.Ceil(p / 100 * float64(len(values))))
	return slices.Sorted(slices.Values(values))[max(rank, 1)-1]
}

// Spread returns the spread of a metric over the repeats that have it.
func (r *Run) Spread(k Key) Spread {
	return Summarize(slices.Collect(maps.Values(r.byRepeat(k))))
}

// Ratio returns the spread of the metric's ratio to that of another system. Each
// repeat gives one ratio: the two were measured within the same minute, so that what
// drifts over a long run is on both sides.
func (r *Run) Ratio(k Key, to string) Spread {
	other := k
	other.System = to
	baseline := r.byRepeat(other)
	var ratios []float64
	for repeat, value := range r.byRepeat(k) {
		if b := baseline[repeat]; b > 0 {
			ratios = append(ratios, value/b)
		}
	}
	return Summarize(ratios)
}

// Compared are the pairs of which both systems are in the run. Where no pairs were chosen,
// they are each system and the baseline, if there is one.
func (r *Run) Compared() (pairs []system.Pair) {
	in := map[string]bool{}
	all := r.Pairs
	for _, s := range r.Systems {
		in[s.Name] = true
		if r.Pairs == nil && s.Name != r.Baseline {
			all = append(all, system.Pair{System: s.Name, To: r.Baseline})
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(p system.Pair) bool { return !in[p.System] || !in[p.To] })
}

func (r *Run) byRepeat(k Key) map[int]float64 {
	values := map[int]float64{}
	for _, s := range r.Samples {
		if s.Profile != k.Profile || s.System != k.System || s.Cell != k.Cell {
			continue
		}
		if value, ok := s.Values[k.Metric]; ok {
			values[s.Repeat] = value
		}
	}
	return values
}

// Total adds a counter of a system up over all samples of a cell.
func (r *Run) Total(profile, system, cell, counter string) uint64 {
	var total uint64
	for _, s := range r.Samples {
		if s.Profile == profile && s.System == system && s.Cell == cell {
			total += s.Counters[counter]
		}
	}
	return total
}
