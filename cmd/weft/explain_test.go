package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/explain"
	"weft/internal/status"
)

func TestExplanationEndsWithTheVerdict(t *testing.T) {
	e := status.Explanation{Example: true, Answer: explain.Answer{
		Node:    "node1",
		Query:   explain.Query{Source: netip.MustParseAddr("10.244.1.7"), Destination: netip.MustParseAddr("10.244.2.9"), Protocol: "tcp", Port: 80},
		Steps:   []explain.Step{{Part: "source", Text: "10.244.1.7: pod shop/web\x1b"}, {Part: "destination", Text: "outside\nthe cluster"}},
		Verdict: explain.Verdict{Text: "dropped here", Remedy: "repair it"},
	}}
	var got strings.Builder
	err := printExplanation(&got, e)
	want := `
packet  10.244.1.7 → 10.244.2.9, TCP port 80 (an example; name another source before the destination)

on node1
  source       10.244.1.7: pod shop/web` + "\ufffd" + `
  destination  outside the cluster
verdict        dropped here; repair it
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), got.String()); err != nil || diff != "" {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
	if err := printExplanation(fullDisk(t), e); err == nil {
		t.Error("a full disk was not noticed")
	}
}
