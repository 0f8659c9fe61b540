package poller

import (
	"errors"
	"os"
	"testing"
	"time"
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

func TestASpinInVainIsRemembered(t *testing.T) {
	p, _, _ := newPipe(t)
	p.spinning = true
	if asked := p.Spin(); asked != 0 {
		t.Errorf("it found something in an empty pipe: asked %d times", asked)
	}
	if p.backoff == (backoff{}) { // that depends on whether another thread had the processor meanwhile
		t.Error("it does not remember that this was in vain")
	}
}

func TestSpinsInVainAreSkippedMoreAndMore(t *testing.T) {
	var b backoff
	now := time.Now()
	next := func() (n int) { // which wait spins
		for n = 1; !b.due(now); n++ {
		}
		return n
	}
	for _, want := range []int{1, 2, 4, 8, 16, 32, 64, 128, 256, 256} {
		if got := next(); got != want {
			t.Errorf("the %d. wait spins, want the %d.", got, want)
		}
		b.failed()
	}
	next()
	b.succeeded()
	if got := next(); got != 1 {
		t.Errorf("the %d. wait spins after one that found something", got)
	}
}

func TestSpinningPausesLongerEachTime(t *testing.T) {
	var b backoff
	now := time.Now()
	for _, want := range []time.Duration{10, 20, 40, 80, 160, 320, 640, 1000, 1000} {
		b.contended(now)
		if b.due(now.Add(want*time.Millisecond - 1)) {
			t.Errorf("spins again within a pause of %d ms", want)
		}
		if now = now.Add(want * time.Millisecond); !b.due(now) {
			t.Errorf("does not spin after a pause of %d ms", want)
		}
	}
	now = now.Add(time.Minute)
	b.contended(now)
	if !b.due(now.Add(shortestPause)) {
		t.Error("a long peace is not rewarded with a short pause")
	}
}
