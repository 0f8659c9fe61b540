package handshake_test

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/encap/sealed/handshake"
	"weft/peer"
)

func TestPeersAnswerInquiries(t *testing.T) {
	t.Parallel()
	var from atomic.Pointer[peer.Peer]
	nodes := newNodes(t, 2, func(m *handshake.Manager) {
		m.Answer = func(p *peer.Peer, question []byte) []byte {
			from.Store(p)
			return append([]byte("answer to "), question...)
		}
	})
	a, b := nodes[0], nodes[1]
	acquaint(a, b) // they have no keys yet: the first inquiry has them agree
	for _, question := range []string{"one", "two", strings.Repeat("x", handshake.MaxQuestion)} {
		answer, err := a.manager.Inquire(t.Context(), "node2", []byte(question))
		if err != nil || string(answer) != "answer to "+question {
			t.Errorf("%q, %v", answer, err)
		}
		if p := from.Load(); p == nil || p.Key != a.self.Key {
			t.Errorf("%v asked", p)
		}
	}
	if _, err := b.manager.Inquire(t.Context(), "node1", []byte("the other way round")); err != nil {
		t.Error(err)
	}
	if _, err := a.manager.Inquire(t.Context(), "node3", []byte("?")); err == nil || !strings.Contains(err.Error(), "node3 is not in the list of nodes") {
		t.Errorf("a node that is not there: %v", err)
	}
	if _, err := a.manager.Inquire(t.Context(), "node2", bytes.Repeat([]byte("x"), handshake.MaxQuestion+1)); err == nil {
		t.Error("a question that is too long was sent")
	}
}

// An answer that is too long, and none, are no answer. A peer of an older version gives none either.
func TestInquiriesWithoutAnAnswerEnd(t *testing.T) {
	t.Parallel()
	for _, answer := range [][]byte{nil, make([]byte, handshake.MaxAnswer+1)} {
		a, b := upPair(t, func(m *handshake.Manager) {
			m.Answer = func(*peer.Peer, []byte) []byte { return answer }
		})
		if _, err := a.manager.Inquire(t.Context(), "node2", []byte("?")); err == nil || !strings.Contains(err.Error(), "node2 gives no answer") {
			t.Errorf("an answer of %d bytes: %v", len(answer), err)
		}
		a.send(b.self, "still there")
		b.expect(t, "still there")
	}
}

// However many ask, one inquiry is answered at a time, and the others are when they ask again.
func TestInquiriesAreAnsweredOneAtATime(t *testing.T) {
	t.Parallel()
	var now, most atomic.Int32
	release := make(chan struct{})
	nodes := newNodes(t, 3, func(m *handshake.Manager) {
		m.Answer = func(*peer.Peer, []byte) []byte {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer now.Add(-1)
			<-release
			return []byte("!")
		}
	})
	acquaint(nodes...)
	var tasks sync.WaitGroup
	ask := func(from int) {
		tasks.Go(func() {
			if _, err := nodes[from].manager.Inquire(t.Context(), "node3", []byte("?")); err != nil && !strings.Contains(err.Error(), "gives no answer") {
				t.Error(err)
			}
		})
	}
	for range 4 {
		ask(0)
		ask(1)
	}
	eventually(t, "an inquiry to be answered", func() bool { return now.Load() > 0 })
	close(release)
	tasks.Wait()
	if most.Load() != 1 {
		t.Errorf("%d inquiries were answered at a time", most.Load())
	}
}

// A peer that asks without pause leaves half of the answers to the others.
func TestOnePeerCantTakeAllAnswers(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, 3)
	acquaint(nodes...)
	answers, greedy, refused := nodes[2].manager, 0, 0
	begin := time.Now()
	for second := range 120 {
		now := begin.Add(time.Duration(second) * time.Second)
		for range 100 {
			if answers.MayAnswer("node1", now) {
				greedy++
			}
		}
		if second%2 == 0 && !answers.MayAnswer("node2", now) {
			refused++
		}
	}
	if refused > 0 || greedy < 60 || greedy > 70 {
		t.Errorf("in two minutes node1 gets %d answers, and node2 lacks %d of 60", greedy, refused)
	}
}

func TestInquiriesToAPeerThatIsDownEnd(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, 2)
	acquaint(nodes...)
	nodes[1].stop()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := nodes[0].manager.Inquire(ctx, "node2", []byte("?"))
	if err == nil || !strings.Contains(err.Error(), "node2 is unreachable: ") {
		t.Errorf("%v", err)
	}
}
