package system

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestMetricsOfBothNodesAddUp(t *testing.T) {
	metrics := map[string]string{
		`weft_drops_total{reason="no_route"}`: "3", `weft_packets_total{direction="inbound"}`: "1.5e+09",
		"weft_peers": "1", "go_memstats_alloc_bytes_total": "77", "weft_state_rejected_total": "0",
	}
	c := Counters{}
	for range 2 {
		if err := c.addMetrics(metrics); err != nil {
			t.Fatal(err)
		}
	}
	want := Counters{`weft_drops_total{reason="no_route"}`: 6, `weft_packets_total{direction="inbound"}`: 3e9, "weft_state_rejected_total": 0}
	if !maps.Equal(c, want) {
		t.Errorf("got %v", c)
	}
	if reason, ok := DropReason(`weft_drops_total{reason="no_route"}`); reason != "no_route" || !ok {
		t.Errorf("reason %q, %v", reason, ok)
	}
	if _, ok := DropReason("weft_state_rejected_total"); ok {
		t.Error("another counter counts as drops")
	}
}

func TestCountersReportGains(t *testing.T) {
	got := Counters{"a": 5, "b": 2, "new": 1}.Since(Counters{"a": 3, "b": 2})
	if !maps.Equal(got, Counters{"a": 2, "new": 1}) {
		t.Errorf("got %v", got)
	}
}

func TestAnswersOfWireGuard(t *testing.T) {
	for answer, want := range map[string]struct {
		key, value, err string
	}{
		"public_key=00ff\ntx_bytes=42\nerrno=0\n\nrest": {key: "tx_bytes", value: "42"},
		"errno=-22\n\n": {err: "errno -22"},
		"tx_bytes=42\n": {err: "no whole answer"},
	} {
		got, err := parseAnswer(strings.NewReader(answer))
		if want.err != "" {
			if err == nil || !strings.Contains(err.Error(), want.err) {
				t.Errorf("%q: got %v", answer, err)
			}
			continue
		}
		if err != nil || got[want.key] != want.value {
			t.Errorf("%q: got %v, %v", answer, got, err)
		}
	}
}

func TestSystemsHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range slices.Concat(All(), Before()) {
		if seen[s.Name] || strings.ContainsAny(s.Name, ", ") {
			t.Errorf("bad name %q", s.Name)
		}
		seen[s.Name] = true
	}
	if !seen[Baseline] {
		t.Errorf("no system %s to compare with", Baseline)
	}
	for _, p := range Pairs() {
		if !seen[p.System] || !seen[p.To] {
			t.Errorf("no systems %+v", p)
		}
	}
}
