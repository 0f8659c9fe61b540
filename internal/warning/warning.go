// Package warning is what an operator needs to know and do something about while pods go on:
// the first lines of `weft status`, a line of the log and a metric.
package warning

import (
	"cmp"
	"slices"
)

// Warning is one such thing.
type Warning struct {
	// Code is its kind, as metrics have it: "key_changed". There are few of them.
	Code string `json:"code"`

	// Text says what is wrong, and after a semicolon what to do.
	Text string `json:"text"`
}

// Sort orders warnings by code and text, and returns each once.
func Sort(all []Warning) []Warning {
	slices.SortFunc(all, func(a, b Warning) int { return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.Text, b.Text)) })
	return slices.Compact(all)
}

// Counts returns how many there are of each code.
func Counts(all []Warning) map[string]int {
	counts := map[string]int{}
	for _, w := range all {
		counts[w.Code]++
	}
	return counts
}

// News returns those of now that were not there before, and those that are over. Both must be
// sorted.
func News(before, now []Warning) (begun, over []Warning) {
	not := func(in []Warning) func(Warning) bool { return func(w Warning) bool { return slices.Contains(in, w) } }
	return slices.DeleteFunc(slices.Clone(now), not(before)), slices.DeleteFunc(slices.Clone(before), not(now))
}
