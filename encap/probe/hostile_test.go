package probe

import (
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"weft/drop"
	"weft/peer"
)

func TestForgedRepliesDontCount(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		w.expectMTU(5*time.Second, deviceMTU)
		other := &peer.Peer{Name: "node3"}
		w.Update([]*peer.Peer{w.peer, other}, deviceMTU)
		w.set(func() { w.loses = above(1000) })
		var forging sync.WaitGroup
		defer forging.Wait()
		forging.Go(func() {
			for id := range uint64(500) {
				time.Sleep(10 * time.Millisecond)
				forged := binary.BigEndian.AppendUint64([]byte{reply, 0, 0, 0}, id)
				w.Receive(w.peer, forged)
				w.awaited.Range(func(id, _ any) bool { // another peer that knows the number
					w.Receive(other, binary.BigEndian.AppendUint64([]byte{reply, 0, 0, 0}, id.(uint64)))
					return true
				})
			}
		})
		w.expectMTU(5*time.Second, 1000)
	})
}

func TestReceiveRefuses(t *testing.T) {
	w := &world{t: t, peer: &peer.Peer{Name: "node2"}}
	p := New(w, 1)
	p.Update([]*peer.Peer{w.peer}, deviceMTU)
	for _, test := range []struct {
		name    string
		from    string
		message []byte
		want    drop.Reason
	}{
		{"a request", "node2", append([]byte{request}, make([]byte, 100)...), drop.None},
		{"a reply", "node2", append([]byte{reply}, make([]byte, messageLen)...), drop.None},
		{"a kind that there is not", "node2", append([]byte{3}, make([]byte, messageLen)...), drop.Malformed},
		{"too short", "node2", []byte{request, 0, 0}, drop.Malformed},
		{"nothing", "node2", nil, drop.Malformed},
		{"of no peer", "node9", append([]byte{request}, make([]byte, 100)...), drop.UnknownPeer},
	} {
		if got := p.Receive(&peer.Peer{Name: test.from}, test.message); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
	refused := 0
	for range 10 * answerBurst {
		if p.Receive(w.peer, append([]byte{request}, make([]byte, 100)...)) == drop.ProbesFull {
			refused++
		}
	}
	if refused < 8*answerBurst {
		t.Errorf("only %d requests of a flood were refused", refused)
	}
}

// TestFloodOfOnePeer: however many messages a peer sends, those of others find room.
func TestFloodOfOnePeer(t *testing.T) {
	w := &world{t: t, peer: &peer.Peer{Name: "node2"}, silent: true}
	p, other := New(w, 1), &peer.Peer{Name: "node3"}
	p.Update([]*peer.Peer{w.peer, other}, deviceMTU)
	p.running[(*p.known.Load())["node2"]] = struct{}{}
	p.advance(time.Now())
	ids := []uint64{7} // of no request
	p.awaited.Range(func(id, _ any) bool {
		ids = append(ids, id.(uint64))
		return true
	})
	if len(ids) < 2 {
		t.Fatal("nothing was asked")
	}
	for range 2 * maxArrivals {
		p.Receive(w.peer, append([]byte{request}, make([]byte, 100)...))
		for _, id := range ids {
			p.Receive(w.peer, binary.BigEndian.AppendUint64([]byte{reply, 0, 0, 0}, id))
		}
	}
	if got := p.Receive(other, append([]byte{request}, make([]byte, messageLen)...)); got != drop.None {
		t.Errorf("another peer's request: %v", got)
	}
	replies := 0
	for len(p.arrivals) > 0 {
		if a := <-p.arrivals; a.kind == reply {
			replies++
		}
	}
	if replies != len(ids)-1 {
		t.Errorf("%d replies wait for their turn, and %d were asked for", replies, len(ids)-1)
	}
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte{request, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Add([]byte{reply, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Fuzz(func(t *testing.T, message []byte) {
		w := &world{t: t, peer: &peer.Peer{Name: "node2"}, loses: above(0)}
		p := New(w, 1)
		p.Update([]*peer.Peer{w.peer}, deviceMTU)
		p.Receive(w.peer, message)
		for len(p.arrivals) > 0 {
			p.take(<-p.arrivals)
		}
	})
}
