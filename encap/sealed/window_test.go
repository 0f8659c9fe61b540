package sealed

import (
	"math/rand/v2"
	"testing"
)

// slowWindow is what window must do, in the plainest way.
type slowWindow struct {
	seen map[uint64]bool
	next uint64
}

func (w *slowWindow) accept(counter uint64) bool {
	if counter >= counterLimit || w.seen[counter] || counter+Window < w.next {
		return false
	}
	w.seen[counter] = true
	w.next = max(w.next, counter+1)
	return true
}

func (w *window) accept(counter uint64) bool {
	if !w.fresh(counter) {
		return false
	}
	w.mark(counter)
	return true
}

// It takes none that is too old.
func TestWindowTakesEachCounterOnce(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 50 {
		w, slow := new(window), &slowWindow{seen: map[uint64]bool{}}
		at := uint64(0)
		for range 20_000 {
			switch random.IntN(100) {
			case 0:
				at += random.Uint64N(3 * Window) // a jump
			case 1:
				at = at/64*64 + 63 // to the edge of a word
			default:
				at += random.Uint64N(4)
			}
			counter := at - min(at, random.Uint64N(Window+200)*random.Uint64N(2))
			if got, want := w.accept(counter), slow.accept(counter); got != want {
				t.Fatalf("round %d: counter %d with %d next: %v, want %v", round, counter, slow.next, got, want)
			}
		}
	}
}

func TestAWindowTakesNoCounterThatAKeyMustNotHave(t *testing.T) {
	for _, counter := range []uint64{counterLimit, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
		if w := new(window); w.fresh(counter) {
			t.Errorf("%d is taken", counter)
		}
	}
	w := new(window)
	w.mark(counterLimit - 1)
	if !w.fresh(counterLimit-Window) || w.fresh(counterLimit-Window-1) || w.fresh(counterLimit-1) {
		t.Error("the last counters of a key are not treated like others")
	}
}
