package poller

import (
	"errors"
	"os"
	"testing"
)

func TestSpinFindsWhatIsThere(t *testing.T) {
	p, _, writer := newPipe(t)
	if _, err := writer.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	p.spinning = false
	if asked := p.Spin(); asked != 0 {
		t.Errorf("it spins where it must not: asked %d times", asked)
	}
	p.spinning = true
	if asked := p.Spin(); asked != 1 {
		t.Errorf("it asked %d times for what is there", asked)
	}
	if waited, err := p.Wait(); waited || err != nil {
		t.Errorf("Wait = %v, %v for what is there", waited, err)
	}
	p.Close()
	if _, err := p.Wait(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Wait = %v, want os.ErrClosed", err)
	}
}

func TestSpinsInVainBecomeRare(t *testing.T) {
	p, _, _ := newPipe(t)
	p.spinning = true
	if asked := p.Spin(); asked != 0 {
		t.Errorf("it found something in an empty pipe: asked %d times", asked)
	}
	if p.backoff.skip == 0 {
		t.Error("the next wait spins too")
	}
}

// waits returns how many waits pass until one spins.
func (b *backoff) waits() (n int) {
	for n = 1; !b.due(); n++ {
	}
	return n
}

func TestBackoff(t *testing.T) {
	var b backoff
	for _, want := range []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024} {
		if got := b.waits(); got != want {
			t.Errorf("the %d. wait spins, want the %d.", got, want)
		}
		b.failed()
	}
	b.waits()
	b.succeeded()
	if got := b.waits(); got != 1 {
		t.Errorf("the %d. wait spins after one that found something", got)
	}

	// In others' way: longer each time, unless there was peace for long.
	for _, want := range []int{128, 256, 512, 1024, 2048, 2048} {
		b.contended()
		if got := b.waits(); got != want+1 {
			t.Errorf("the %d. wait spins after a pause, want the %d.", got, want+1)
		}
		b.succeeded()
	}
	for range 8 * longestPause {
		b.waits()
		b.succeeded()
	}
	b.contended()
	if got := b.waits(); got != shortestPause+1 {
		t.Errorf("the %d. wait spins though there was peace before, want the %d.", got, shortestPause+1)
	}
}
