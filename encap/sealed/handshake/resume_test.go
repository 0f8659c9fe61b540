package handshake_test

import (
	"testing"

	"weft/encap/sealed/handshake"
)

// The next process goes on with the keys at once, while the peer notices nothing. Both agree on
// new ones when they see that their connection is gone.
func TestKeysAreResumedWithoutAHandshake(t *testing.T) {
	a, b := upPair(t)
	for range 3 {
		a.pause()
		began := a.peers.Find(b.self.Key).Sending().Began()
		b.send(a.self, "sent meanwhile")
		export := a.peers.Export()
		a.prepare(t)
		a.know(b.self)
		if n, err := a.manager.Resume(export); n != 1 || err != nil {
			t.Fatalf("Resume = %d, %v", n, err)
		}
		if now := a.peers.Find(b.self.Key).Sending().Began(); now.Sub(began).Abs().Seconds() > 1 {
			t.Errorf("the keys began at %v, and then at %v", began, now)
		}
		a.send(b.self, "from the next") // before there is anyone to shake hands
		b.expect(t, "from the next")
		a.start(t)
		a.expect(t, "sent meanwhile")
		eventually(t, "both are up", func() bool {
			a.send(b.self, "look after me")
			return a.status(t, b).RTT > 0 && b.status(t, a).RTT > 0
		})
	}
}

// Keys that come into use while Run ends are the next process's: the peer may seal with them.
func TestKeysOfTheLastMomentAreResumed(t *testing.T) {
	var a *node
	nodes := newNodes(t, 2, handshake.WhenUsed(func() {
		go a.pause()
		eventually(t, "Run has ended all connections", func() bool { return len(a.manager.Status()) == 0 })
	}))
	a, b := nodes[0], nodes[1]
	b.know(a.self)
	a.know(b.self)
	a.send(b.self, "hello")
	b.expect(t, "hello")
	b.send(a.self, "sealed with them")
	a.pause()
	export := a.peers.Export()
	a.prepare(t)
	a.know(b.self)
	if n, err := a.manager.Resume(export); n != 1 || err != nil {
		t.Fatalf("Resume = %d, %v", n, err)
	}
	a.start(t)
	a.expect(t, "sealed with them")
}

// A path that is known to lose runs gets none from the next process.
func TestLostRunsAreRemembered(t *testing.T) {
	a, b := upPair(t)
	a.pause()
	a.peers.Find(b.self.Key).SendSingly(true)
	export := a.peers.Export()
	a.prepare(t)
	a.know(b.self)
	if _, err := a.manager.Resume(export); err != nil {
		t.Fatal(err)
	}
	if s := a.status(t, b); !s.RunsLost || !a.peers.Find(b.self.Key).Singly() {
		t.Errorf("Status = %+v", s)
	}
}
