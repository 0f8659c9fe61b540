package main

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/explain"
	"weft/internal/status"
)

func TestExplanationBeginsWithTheVerdict(t *testing.T) {
	e := status.Explanation{Example: true, Answer: explain.Answer{
		Node:    "node1",
		Query:   explain.Query{Source: netip.MustParseAddr("10.244.1.7"), Destination: netip.MustParseAddr("10.244.2.9"), Protocol: "tcp", Port: 80},
		Steps:   []explain.Step{{Part: "source", Text: "10.244.1.7: pod shop/web\x1b"}, {Part: "destination", Text: "outside\nthe cluster"}},
		Verdict: explain.Verdict{Text: "dropped here", Remedy: "repair it"},
	}}
	e.Peer, e.PeerSide = "node2", &explain.Answer{Steps: []explain.Step{{Part: "a\x1b", Text: "b\x1b"}}, Verdict: explain.Verdict{Text: "never seen\x1b"}}
	e.Conclude()
	var got strings.Builder
	err := printExplanation(&got, e)
	want := `
packet   10.244.1.7 → 10.244.2.9, TCP port 80 (an example; name another source before the destination)
verdict  dropped here; repair it

on node1
  source       10.244.1.7: pod shop/web` + "\ufffd" + `
  destination  outside the cluster
  result       dropped here

on node2, as it says
  a` + "\ufffd" + `      b` + "\ufffd" + `
  result  never seen` + "\ufffd" + `
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), got.String()); err != nil || diff != "" {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
	if err := printExplanation(fullDisk(t), e); err == nil {
		t.Error("a full disk was not noticed")
	}
}

func TestTheNodeAtWhichThePacketEndsDecides(t *testing.T) {
	yes, no := explain.Verdict{Delivered: true, Text: "goes on"}, explain.Verdict{Text: "ends", Remedy: "repair it"}
	endsThere := explain.Verdict{Text: "node2 says: ends", Remedy: "`weft status` and `weft explain` on node2 have the remedy"}
	for _, tt := range []struct {
		name        string
		inbound     bool
		here, there explain.Verdict
		want        explain.Verdict
	}{
		{"sent and delivered", false, yes, yes, explain.Verdict{Delivered: true, Text: "node2 says: goes on"}},
		{"sent and dropped there", false, yes, no, endsThere},
		{"not sent", false, no, yes, no},
		{"received and delivered", true, yes, yes, yes},
		{"received and dropped here", true, no, yes, no},
		{"not sent there", true, yes, no, endsThere},
	} {
		e := status.Explanation{Answer: explain.Answer{Peer: "node2", Inbound: tt.inbound, Verdict: tt.here}, PeerSide: &explain.Answer{Verdict: tt.there}}
		if e.Conclude(); e.Overall != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, e.Overall, tt.want)
		}
	}
	e := status.Explanation{Answer: explain.Answer{Peer: "node2", Verdict: yes}, PeerError: "no answer"}
	if e.Conclude(); e.Overall != yes {
		t.Errorf("without an answer: %+v", e.Overall)
	}
}
