package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/onsi/ginkgo/v2/types"
)

// outcome is what became of a test, as the page counts it.
type outcome string

const (
	passed  outcome = "passed"
	failed  outcome = "failed"
	skipped outcome = "skipped themselves"
	notRun  outcome = "not run"
)

var outcomes = []outcome{passed, failed, skipped, notRun}

func (t test) outcome() outcome {
	switch {
	case t.state == types.SpecStatePassed:
		return passed
	case t.state.Is(types.SpecStateFailureStates):
		return failed
	case t.state == types.SpecStateSkipped && t.Message != "":
		return skipped
	}
	return notRun
}

// Why is the reason of an outcome other than passed, or empty where none is known.
func (t test) Why() string {
	switch t.outcome() {
	case failed:
		return knownFailures.reason(t)
	case skipped:
		return t.Message
	case notRun:
		return leftOut.reason(t)
	}
	return ""
}

// result is what became of all tests of [sig-network].
type result struct {
	tests []test
	took  time.Duration
}

// add takes those tests over that belong to Kubernetes' conformance, or the others: each part of
// the run reports all tests, and it left out those of the other part.
func (r *result) add(tests []test, conformance bool) {
	for _, t := range tests {
		if t.conformance == conformance {
			r.tests = append(r.tests, t)
		}
	}
	slices.SortFunc(r.tests, func(a, b test) int { return strings.Compare(a.FullName(), b.FullName()) })
}

// of returns the tests with an outcome.
func (r *result) of(o outcome) []test {
	return slices.DeleteFunc(slices.Clone(r.tests), func(t test) bool { return t.outcome() != o })
}

// failures is an error that names the tests that failed for no known reason.
func (r *result) failures() error {
	var errs []error
	for _, t := range r.of(failed) {
		if t.Why() == "" {
			errs = append(errs, fmt.Errorf("failed: %s: %s", t.FullName(), firstLine(t.Message)))
		}
	}
	return errors.Join(errs...)
}

// verdict is failures for a run of all tests: there must be some, and a reason for each that was
// not run. A test that is known to fail must fail, so that the list of them stays true.
func (r *result) verdict() error {
	errs := []error{r.failures()}
	for _, t := range r.of(notRun) {
		if t.Why() == "" {
			errs = append(errs, fmt.Errorf("not run: %s", t.FullName()))
		}
	}
	for _, t := range r.of(passed) {
		if knownFailures.reason(t) != "" {
			errs = append(errs, fmt.Errorf("passed, though it is known to fail: %s; remove it from knownFailures", t.FullName()))
		}
	}
	if len(r.of(passed)) == 0 {
		errs = append(errs, errors.New("no test passed"))
	}
	return errors.Join(errs...)
}

// print writes the counts.
func (r *result) print(w io.Writer) {
	for _, o := range outcomes {
		fmt.Fprintf(w, "%4d %s\n", len(r.of(o)), o)
	}
}

//go:embed page.md
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{"cell": cell}).Parse(pageText))

// writePage writes the page of docs/. The versions are those of the programs that ran.
func (r *result) writePage(file string, versions []version) error {
	var text bytes.Buffer
	err := page.Execute(&text, map[string]any{
		"Counts": r.counts(), "Failed": r.of(failed),
		"Skipped": byReason(r.of(skipped)), "NotRun": byReason(r.of(notRun)), "Passed": byGroup(r.of(passed)),
		"Minutes": int(r.took.Round(time.Minute).Minutes()), "Versions": versions,
	})
	if err != nil {
		return err
	}
	return os.WriteFile(file, text.Bytes(), 0o644)
}

// counts are a row each for the tests of Kubernetes' conformance, and for the others.
func (r *result) counts() map[string][]int {
	rows := map[string][]int{"Conformance": make([]int, len(outcomes)), "others": make([]int, len(outcomes))}
	for _, t := range r.tests {
		row := "others"
		if t.conformance {
			row = "Conformance"
		}
		rows[row][slices.Index(outcomes, t.outcome())]++
	}
	return rows
}

// group is tests under a common title.
type group struct {
	Title string
	Tests []test
}

// Groups are the tests by what they test.
func (g group) Groups() []group { return byGroup(g.Tests) }

func byGroup(tests []test) []group  { return groups(tests, func(t test) string { return t.Group }) }
func byReason(tests []test) []group { return groups(tests, test.Why) }

func groups(tests []test, title func(test) string) (all []group) {
	titled := make(map[string][]test)
	for _, t := range tests {
		titled[title(t)] = append(titled[title(t)], t)
	}
	for _, t := range slices.Sorted(maps.Keys(titled)) {
		all = append(all, group{t, titled[t]})
	}
	return all
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// cell is a text as a cell of a table can have it.
func cell(text string) string { return strings.ReplaceAll(firstLine(text), "|", "\\|") }
