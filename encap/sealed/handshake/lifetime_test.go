package handshake_test

import (
	"fmt"
	"testing"
	"time"

	"weft/encap/sealed/handshake"
)

// hurriedPair is two nodes that have keys, and for whom time passes quickly.
func hurriedPair(t *testing.T) (a, b *node) {
	t.Helper()
	nodes := newNodes(t, 2, (*handshake.Manager).Hurry)
	a, b = nodes[0], nodes[1]
	acquaint(a, b)
	a.send(b.self, "hello")
	b.expect(t, "hello", 5*time.Second)
	eventually(t, "both are up", 5*time.Second, func() bool {
		return a.status(t, b).State == handshake.Up && b.status(t, a).State == handshake.Up
	})
	return a, b
}

func TestAnIdleConnectionIsClosedAndItsKeysLiveOn(t *testing.T) {
	a, b := hurriedPair(t)
	eventually(t, "both are idle", 5*time.Second, func() bool {
		return a.status(t, b).State == handshake.Idle && b.status(t, a).State == handshake.Idle
	})
	agreed := a.manager.Counts().Agreed
	a.send(b.self, "with the old keys")
	b.expect(t, "with the old keys", 100*time.Millisecond)
	eventually(t, "they look after each other again", 5*time.Second, func() bool { return a.status(t, b).State == handshake.Up })
	if now := a.manager.Counts().Agreed; now == agreed {
		t.Error("a connection was made without new keys")
	}
}

func TestKeysAreReplacedInTimeWhilePacketsPassAndForgottenWhenNoneDo(t *testing.T) {
	a, b := hurriedPair(t)
	first := a.status(t, b).Began
	sent := 0
	for began := time.Now(); time.Since(began) < 4*time.Second; sent++ {
		text := fmt.Sprint("packet ", sent)
		a.send(b.self, text)
		b.expect(t, text, time.Second)
		time.Sleep(5 * time.Millisecond)
	}
	if now := a.status(t, b).Began; now.Sub(first) < 2*time.Second {
		t.Errorf("after 4 s the keys of %s are those of %s", now, first)
	}
	if lost := b.dropped(); lost != "" {
		t.Errorf("of %d packets some were dropped: %s", sent, lost)
	}
	if n := len(a.peers.Find(b.self.Key).Epochs()); n > 3 {
		t.Errorf("%d epochs are kept", n)
	}
	eventually(t, "unused keys are forgotten", 10*time.Second, func() bool {
		return a.status(t, b).State == handshake.NoKeys && len(a.peers.Find(b.self.Key).Epochs()) == 0
	})
	a.send(b.self, "new keys")
	b.expect(t, "new keys", 5*time.Second)
}
