package handshake

import (
	"testing"
	"testing/synctest"
	"time"
)

// Admission waits until QUIC has sent what it queued, but not for long.
func TestRepliesAreQueuedNoFasterThanSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, began := newReplies(), time.Now()
		open := make(chan struct{})
		for range mostQueued {
			r.await(open)
		}
		if time.Since(began) != 0 {
			t.Fatal("it waits though QUIC has room")
		}
		const halfway = replyWithin / 2
		time.AfterFunc(halfway, func() {
			r.sent(append([]byte{0xe0}, make([]byte, 60)...))   // of a handshake
			r.sent(append([]byte{0xc0}, make([]byte, 1199)...)) // its first packet
			r.sent(append([]byte{0xf0}, make([]byte, 100)...))  // a Retry
		})
		r.await(open)
		if waited := time.Since(began); waited != halfway {
			t.Errorf("after a Retry was sent it waits for %v", waited)
		}
		r.await(open)
		if waited := time.Since(began); waited != halfway+replyWithin {
			t.Errorf("where none is sent it waits for %v", waited-halfway)
		}
		r.sent(append([]byte{0xc3}, make([]byte, 60)...)) // a refusal
		r.await(open)
		if waited := time.Since(began); waited != halfway+replyWithin {
			t.Error("a refusal that was sent makes no room")
		}
	})
}
