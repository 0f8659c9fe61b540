package handshake_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"weft/encap/sealed"
	"weft/encap/sealed/handshake"
	"weft/internal/testnet"
	"weft/peer"
)

// A list of nodes may be under way to a manager when weftd ends.
func TestAManagerThatHasEndedTakesNoMoreLists(t *testing.T) {
	for name, list := range map[string]func(b, c *peer.Peer) []*peer.Peer{
		"with the same peer":    func(b, c *peer.Peer) []*peer.Peer { return []*peer.Peer{b} },
		"with one more":         func(b, c *peer.Peer) []*peer.Peer { return []*peer.Peer{b, c} },
		"without any":           func(b, c *peer.Peer) []*peer.Peer { return nil },
		"with another in place": func(b, c *peer.Peer) []*peer.Peer { return []*peer.Peer{c} },
	} {
		t.Run(name, func(t *testing.T) {
			nodes := newNodes(t, 3)
			a, b, c := nodes[0], nodes[1], nodes[2]
			acquaint(a, b)
			a.stop()
			a.know(list(b.self, c.self)...)
			if got := a.manager.Status(); len(got) != 0 {
				t.Errorf("it has peers: %+v", got)
			}
			if err := a.manager.Rotate(t.Context(), c.self.Name); err == nil {
				t.Error("it agrees on keys")
			}
		})
	}
}

func TestARotationEndsWithThePeer(t *testing.T) {
	for name, end := range map[string]func(a *node){
		"when the list has it no more": func(a *node) { a.know() },
		"when this node ends":          func(a *node) { a.stop() },
	} {
		t.Run(name, func(t *testing.T) {
			nodes := newNodes(t, 2)
			a, b := nodes[0], nodes[1]
			a.know(b.self) // which does not know a, and so does not answer
			done := make(chan error, 1)
			go func() { done <- a.manager.Rotate(t.Context(), b.self.Name) }()
			eventually(t, "keys are being agreed", func() bool { return a.status(t, b).State == handshake.Agreeing })
			end(a)
			select {
			case err := <-done:
				if err == nil {
					t.Error("Rotate reported new keys")
				}
			case <-time.After(testnet.WaitLimit):
				t.Error("it goes on")
			}
		})
	}
}

// The race detector would report a conflict.
func TestARotationMayFailWhileTheListChanges(t *testing.T) {
	nodes := newNodes(t, 2)
	a, b := nodes[0], nodes[1]
	a.know(b.self) // which does not know a, and so does not answer
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		done := make(chan error, 1)
		go func() { done <- a.manager.Rotate(ctx, b.self.Name) }()
		for len(done) == 0 {
			a.know(b.self)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), b.self.Name) {
			t.Errorf("Rotate = %v", err)
		}
	}
}

func TestUnreadRoamingDoesNotBlockStop(t *testing.T) {
	nobody := func(m *handshake.Manager) { m.Followed = make(chan sealed.Move) }
	a, b := upPair(t, nobody)
	elsewhere := startNode(t, int(nextSubnet.Load()), 3, b.key)
	elsewhere.know(a.self)
	b.sendFrom(elsewhere.conn, a.self, "I have moved")
	eventually(t, "a looks for it there", func() bool { return a.manager.Counts().Agreed == 2 })
	a.stop()
	eventually(t, "no dial is left", func() bool { return !running("handshake.(*Manager).dial(") })
}

// running reports whether a goroutine is in a function.
func running(function string) bool {
	stacks := make([]byte, 1<<20)
	return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte(function))
}
