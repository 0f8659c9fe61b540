package monitoring

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"weft/drop"
	"weft/internal/manual"
	"weft/internal/metrics"
)

const rulesFile = "../../deploy/prometheus/weft-rules.yaml"

// alert is a rule of rulesFile.
type alert struct {
	Alert       string
	Expr        string
	For         string
	Labels      struct{ Severity string }
	Annotations struct{ Summary, Description, Runbook string }
}

func alerts(t *testing.T) []alert {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alert } }
	if err := yaml.Unmarshal(read(t, rulesFile), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Groups) != 1 {
		t.Fatalf("%s has %d groups", rulesFile, len(file.Groups))
	}
	return file.Groups[0].Rules
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestRulesAreValid(t *testing.T) { promtool(t, "check", "rules", "--lint-fatal", rulesFile) }

// rules_test.yaml has series for which each alert fires, and such for which none does.
func TestRulesByTheirSeries(t *testing.T) {
	const tests = "testdata/rules_test.yaml"
	promtool(t, "test", "rules", tests)
	for _, a := range alerts(t) {
		if !regexp.MustCompile(`\b` + a.Alert + `\b`).Match(read(t, tests)) {
			t.Errorf("%s has no test in %s", a.Alert, tests)
		}
	}
}

// An operator who is woken learns what is wrong, what to do, and where to read on.
func TestAlertsAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range alerts(t) {
		if seen[a.Alert] {
			t.Errorf("there are two alerts %s", a.Alert)
		}
		seen[a.Alert] = true
		if !regexp.MustCompile(`^Weft[A-Z][A-Za-z]+$`).MatchString(a.Alert) {
			t.Errorf("%s is no name for an alert about weft", a.Alert)
		}
		if s := a.Labels.Severity; s != "critical" && s != "warning" {
			t.Errorf("%s: severity %q", a.Alert, s)
		}
		if s := a.Annotations.Summary; s == "" || strings.HasSuffix(s, ".") {
			t.Errorf("%s: summary %q", a.Alert, s)
		}
		if d := a.Annotations.Description; !strings.HasSuffix(d, ".") {
			t.Errorf("%s: description %q", a.Alert, d)
		}
		expectHeading(t, a)
	}
}

// expectHeading fails unless the runbook of an alert is a section of a page.
func expectHeading(t *testing.T, a alert) {
	t.Helper()
	path, anchor, _ := strings.Cut(a.Annotations.Runbook, "#")
	if !slices.Contains(manual.Operators(t), path) || !manual.Anchors(t, path)[anchor] {
		t.Errorf("%s: the runbook %q is no section of a page for operators", a.Alert, a.Annotations.Runbook)
	}
}

// A metric that does not exist makes no rule and no query fail: it never has a value.
func expectKnownMetrics(t *testing.T, where, expr string) {
	t.Helper()
	known := map[string][]string{"process_start_time_seconds": {"job"}, "process_cpu_seconds_total": {"job"}, "process_resident_memory_bytes": {"job"}}
	for _, g := range metrics.Groups() {
		for _, f := range g.Families {
			known[f.Name] = f.Labels
		}
	}
	for _, match := range regexp.MustCompile(`\b((?:weft|process|go)_[a-z_]+)(?:\{([^}]*)\})?`).FindAllStringSubmatch(expr, -1) {
		labels, ok := known[match[1]]
		if !ok {
			t.Errorf("%s: there is no metric %s", where, match[1])
			continue
		}
		for _, label := range regexp.MustCompile(`([a-z_]+)\s*(?:=~|!~|!=|=)\s*"`).FindAllStringSubmatch(match[2], -1) {
			if !slices.Contains(labels, label[1]) && !slices.Contains([]string{"instance", "job"}, label[1]) {
				t.Errorf("%s: %s has no label %s", where, match[1], label[1])
			}
		}
	}
}

func TestAlertsAreOfMetricsThatExist(t *testing.T) {
	for _, a := range alerts(t) {
		expectKnownMetrics(t, a.Alert, a.Expr)
	}
}

// Each drop reason belongs to one alert, except congestion, which is no fault.
func TestEveryDropReasonHasAnAlert(t *testing.T) {
	got := map[string]int{}
	for _, a := range alerts(t) {
		if match := regexp.MustCompile(`weft_drops_total\{reason=~?"([a-z_|]+)"\}`).FindStringSubmatch(a.Expr); match != nil {
			for reason := range strings.SplitSeq(match[1], "|") {
				got[reason]++
			}
		}
	}
	want := map[string]int{}
	for _, reason := range drop.All() {
		if reason != drop.Congestion {
			want[reason.String()] = 1
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("alerts by reason: %v; want one of each in %v", got, want)
	}
}

// WeftWarning is of the codes that no other alert has.
func TestEveryWarningHasAnAlert(t *testing.T) {
	var special, others []string
	for _, a := range alerts(t) {
		for _, match := range regexp.MustCompile(`weft_warnings\{code(=~|=|!~)"([a-z_|]+)"\}`).FindAllStringSubmatch(a.Expr, -1) {
			codes := strings.Split(match[2], "|")
			if match[1] == "!~" {
				others = codes
			} else {
				special = append(special, codes...)
			}
		}
	}
	// These have metrics of their own.
	special = append(special, "host_repaired", "path_mtu", "peers_unreachable", "pool_exhausted")
	slices.Sort(special)
	slices.Sort(others)
	if !slices.Equal(special, others) {
		t.Errorf("WeftWarning leaves out %v; other alerts are of %v", others, special)
	}
}

// plain replaces what a template inserts by its name.
func plain(text string) string {
	text = regexp.MustCompile(`\{\{ \$labels\.([a-z]+) \}\}`).ReplaceAllStringFunc(text, func(s string) string {
		return strings.ToUpper(strings.Trim(strings.TrimPrefix(s, "{{ $labels."), " }"))
	})
	return regexp.MustCompile(`\{\{ \$value[^}]* \}\}`).ReplaceAllString(text, "N")
}

func TestManualHasEveryAlert(t *testing.T) {
	var text strings.Builder
	text.WriteString("| alert | severity | meaning | what to do |\n|---|---|---|---|\n")
	for _, a := range alerts(t) {
		runbook := strings.TrimPrefix(strings.TrimPrefix(a.Annotations.Runbook, page), "docs/")
		since := ""
		if a.For != "" {
			since = " for " + a.For
		}
		fmt.Fprintf(&text, "| `%s` | %s%s | %s | %s [Read on](%s) |\n", a.Alert, a.Labels.Severity, since,
			plain(a.Annotations.Summary), plain(a.Annotations.Description), runbook)
	}
	manual.ExpectSection(t, page, "alerts", text.String())
}
