package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/onsi/ginkgo/v2/types"
)

func spec(state types.SpecState, message string, texts ...string) types.SpecReport {
	s := types.SpecReport{
		LeafNodeType: types.NodeTypeIt, State: state,
		ContainerHierarchyTexts: texts[:len(texts)-1], LeafNodeText: texts[len(texts)-1],
	}
	s.Failure.Message = message
	return s
}

// Tests of other groups of interest, and what is not a test, are left aside.
func TestReadReport(t *testing.T) {
	report := []types.Report{{SpecReports: []types.SpecReport{
		spec(types.SpecStatePassed, "", "[sig-network] Services", "Nested", "should serve [Conformance]"),
		spec(types.SpecStateFailed, "timed out\nwhile waiting", "[sig-network] DNS", "should resolve"),
		spec(types.SpecStatePassed, "", "[sig-node] Pods", "should run [Conformance]"),
		{LeafNodeType: types.NodeTypeSynchronizedBeforeSuite, State: types.SpecStatePassed},
	}}}
	content, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	tests, err := readReport(file)
	if err != nil {
		t.Fatal(err)
	}
	want := []test{
		{Group: "Services", Name: "Nested should serve [Conformance]", conformance: true, state: types.SpecStatePassed},
		{Group: "DNS", Name: "should resolve", state: types.SpecStateFailed, Message: "timed out\nwhile waiting"},
	}
	if len(tests) != len(want) || tests[0] != want[0] || tests[1] != want[1] {
		t.Errorf("got %+v, want %+v", tests, want)
	}
}

func TestVerdict(t *testing.T) {
	defer func(before reasons) { knownFailures = before }(knownFailures)
	knownFailures = reasons{{"known", "because of the kernel"}}
	fine := test{Group: "DNS", Name: "is fine", state: types.SpecStatePassed}
	for _, c := range []struct {
		name string
		test test
		want string // in the error; empty if there is to be none
	}{
		{"passed", test{Group: "DNS", Name: "passes", state: types.SpecStatePassed}, ""},
		{"failed", test{Group: "DNS", Name: "fails", state: types.SpecStateFailed, Message: "no\nway"}, "failed: DNS fails: no"},
		{"timed out", test{Group: "DNS", Name: "hangs", state: types.SpecStateTimedout}, "failed: DNS hangs"},
		{"failed as known", test{Group: "DNS", Name: "known", state: types.SpecStateFailed}, ""},
		{"passed against expectation", test{Group: "DNS", Name: "known", state: types.SpecStatePassed}, "remove it"},
		{"skipped itself", test{Group: "DNS", Name: "skips", state: types.SpecStateSkipped, Message: "no GCE"}, ""},
		{"left out", test{Group: "Netpol", Name: "NetworkPolicy between pods", state: types.SpecStateSkipped}, ""},
		{"not run for no reason", test{Group: "DNS", Name: "vanished", state: types.SpecStateSkipped}, "not run: DNS vanished"},
	} {
		r := result{tests: []test{fine, c.test}}
		err := r.verdict()
		if c.want == "" && err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
	if err := (&result{}).verdict(); err == nil {
		t.Error("a run without tests is taken for a success")
	}
}

// The two parts of a run report all tests, each those of the other part as not run.
func TestAddTakesEachPartsOwn(t *testing.T) {
	state := func(conformance, other types.SpecState) []test {
		return []test{{Name: "b", conformance: true, state: conformance}, {Name: "a", state: other}}
	}
	var r result
	r.add(state(types.SpecStatePassed, types.SpecStateSkipped), true)
	r.add(state(types.SpecStateSkipped, types.SpecStatePassed), false)
	if passed := r.of(passed); len(r.tests) != 2 || len(passed) != 2 || passed[0].Name != "a" {
		t.Errorf("got %+v", r.tests)
	}
}

// Every test is on the page, with its reason if it did not pass.
func TestPage(t *testing.T) {
	r := result{tests: []test{
		{Group: "Services", Name: "serve", conformance: true, state: types.SpecStatePassed},
		{Group: "Services", Name: "balance", state: types.SpecStateFailed, Message: "unknown\nat line 3"},
		{Group: "DNS", Name: "skip a|b", state: types.SpecStateSkipped, Message: "no GCE\nat line 5"},
		{Group: "Netpol", Name: "NetworkPolicy between pods", state: types.SpecStateSkipped},
		{Group: "Netpol", Name: "NetworkPolicy between others", state: types.SpecStateSkipped},
	}}
	file := filepath.Join(t.TempDir(), "page.md")
	if err := r.writePage(file, []version{{"weft", "v1"}, {"Linux", "6"}}); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"with\nweft v1, Linux 6.\n",
		"| Conformance | 1 | 0 | 0 | 0 |\n",
		"| others | 0 | 1 | 1 | 2 |\n",
		"\n| Services balance | **not known**: unknown |\n",
		"\n| weft has no NetworkPolicy yet | Netpol: 2 |\n",
		"\n| no GCE | DNS skip a\\|b |\n",
		"\n### Services\n\n- serve\n",
	} {
		if !strings.Contains(string(content), want) {
			t.Errorf("the page has no %q:\n%s", want, content)
		}
	}
}
