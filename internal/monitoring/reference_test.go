package monitoring

import (
	"fmt"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"weft/internal/manual"
	"weft/internal/metrics"
)

const page = "docs/METRICS.md"

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
	manual.ExpectSection(t, page, "metrics", text.String())
}
