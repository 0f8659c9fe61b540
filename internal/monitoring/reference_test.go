package monitoring

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"weft/internal/metrics"
)

var update = flag.Bool("update", false, "write the references in docs/METRICS.md anew")

const manual = "../../docs/METRICS.md"

// expectSection compares a section of the manual, which stands between two comments with its
// name, with what it must be, or writes it.
func expectSection(t *testing.T, name, want string) {
	t.Helper()
	data, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	begin := fmt.Sprintf("<!-- %s: written by go test ./internal/monitoring -update -->\n", name)
	end := fmt.Sprintf("<!-- end of %s -->\n", name)
	before, rest, begins := strings.Cut(string(data), begin)
	got, after, ends := strings.Cut(rest, end)
	if !begins || !ends {
		t.Fatalf("%s has no section between\n%sand\n%s", manual, begin, end)
	}
	if *update {
		if err := os.WriteFile(manual, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s differs; run go test ./internal/monitoring -update (-want +got):\n%s", manual, diff)
	}
}

func TestManualHasEveryMetric(t *testing.T) {
	var text strings.Builder
	for _, g := range metrics.Groups() {
		fmt.Fprintf(&text, "\n### %s\n\n| metric | type | meaning |\n|---|---|---|\n", g.Title)
		for _, f := range g.Families {
			name, kind := f.Name, "gauge"
			if len(f.Labels) > 0 {
				name += "{" + strings.Join(f.Labels, ",") + "}"
			}
			if f.Type == prometheus.CounterValue {
				kind = "counter"
			}
			fmt.Fprintf(&text, "| `%s` | %s | %s |\n", name, kind, f.Help)
		}
	}
	text.WriteString("\n")
	expectSection(t, "metrics", text.String())
}
