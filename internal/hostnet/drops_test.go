package hostnet

import (
	"context"
	"maps"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/knftables"
)

// slowNFT lists counters when it is let to.
type slowNFT struct {
	knftables.Interface
	asked, answer chan struct{}
}

func (n slowNFT) ListCounters(context.Context) ([]*knftables.Counter, error) {
	n.asked <- struct{}{}
	<-n.answer
	return []*knftables.Counter{{Name: dropBare, Packets: new(uint64(7)), Bytes: new(uint64(700))}}, nil
}

// However many ask for the guard table's drops, nft is asked once a second at the most, and
// neither waits for a change of the table nor delays one.
func TestReadingDropsDelaysNothing(t *testing.T) {
	nft := slowNFT{asked: make(chan struct{}), answer: make(chan struct{})}
	h := newHost()
	clock := time.Now()
	h.drops.now = func() time.Time { return clock }
	h.drops.guard.nft = nft

	const scrapers = 24
	ask := func() (all *sync.WaitGroup) {
		all = new(sync.WaitGroup)
		for range scrapers {
			all.Go(func() {
				drops, err := h.Drops(context.Background())
				if want := map[string]uint64{dropBare: 7}; err != nil || !maps.Equal(drops, want) {
					t.Errorf("drops %v, %v; want %v", drops, err, want)
				}
			})
		}
		return all
	}
	read := func(during func()) {
		t.Helper()
		all := ask()
		within(t, "nft is asked", func() { <-nft.asked })
		during()
		within(t, "nft answers", func() { nft.answer <- struct{}{} })
		within(t, "all scrapers have their answer, of one read", all.Wait)
	}
	read(func() { within(t, "the table may be changed during the read", func() { h.mu.Lock() }) })
	// The lock that a change holds is held from here on.
	clock = clock.Add(dropsAge - 1)
	within(t, "what was read a moment ago is good enough", ask().Wait)
	clock = clock.Add(1)
	read(func() {})
	h.mu.Unlock()
}

// within fails the test unless do ends.
func within(t testing.TB, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("not so: " + what)
	}
}
