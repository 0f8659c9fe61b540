package handshake_test

import (
	"fmt"
	"testing"
	"time"

	"weft/encap/sealed/handshake"
)

func TestAnIdleConnectionIsClosedAndItsKeysLiveOn(t *testing.T) {
	a, b := upPair(t, (*handshake.Manager).Hurry) // for whom time passes quickly
	eventually(t, "both are idle", func() bool {
		return a.status(t, b).State == handshake.Idle && b.status(t, a).State == handshake.Idle
	})
	agreed := a.manager.Counts().Agreed
	a.send(b.self, "with the old keys")
	b.expect(t, "with the old keys")
	eventually(t, "they look after each other again", func() bool { return a.status(t, b).State == handshake.Up })
	if now := a.manager.Counts().Agreed; now == agreed {
		t.Error("a connection was made without new keys")
	}
}

func TestAnEpochThatCameToNothingIsEndedThoughThereAreNoOtherKeys(t *testing.T) {
	nodes := newNodes(t, 2, (*handshake.Manager).Hurry) // for whom time passes quickly
	a, b := nodes[0], nodes[1]
	acquaint(a, b)
	if err := a.manager.DialInVain(t.Context(), b.self); err != nil {
		t.Fatal(err)
	}
	peer := b.peers.Find(a.self.Key)
	if len(peer.Epochs()) != 1 {
		t.Fatalf("b has %d epochs", len(peer.Epochs()))
	}
	eventually(t, "it is ended", func() bool { return len(peer.Epochs()) == 0 })
}

func TestKeysAreReplacedInTimeWhilePacketsPassAndForgottenWhenNoneDo(t *testing.T) {
	a, b := upPair(t, (*handshake.Manager).Hurry) // for whom time passes quickly
	sent := 0
	for ; a.manager.Counts().Agreed < 4; sent++ { // the first keys, and new ones three times
		text := fmt.Sprint("packet ", sent)
		a.send(b.self, text)
		b.expect(t, text)
		time.Sleep(5 * time.Millisecond)
	}
	if lost := b.dropped(); lost != "" {
		t.Errorf("of %d packets some were dropped: %s", sent, lost)
	}
	if n := len(a.peers.Find(b.self.Key).Epochs()); n > 3 {
		t.Errorf("%d epochs are kept", n)
	}
	eventually(t, "unused keys are forgotten", func() bool {
		return a.status(t, b).State == handshake.NoKeys && len(a.peers.Find(b.self.Key).Epochs()) == 0
	})
	a.send(b.self, "new keys")
	b.expect(t, "new keys")
}
