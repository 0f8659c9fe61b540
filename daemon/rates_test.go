package daemon

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/status"
)

func TestRatesAreOfTheLastSeconds(t *testing.T) {
	var w rateWatch
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	counters := func(sent uint64) map[string]status.Traffic {
		return map[string]status.Traffic{"node2": {SentPackets: sent, SentBytes: 100 * sent}}
	}
	expect := func(at time.Duration, sent uint64, want map[string]*status.Rates) {
		t.Helper()
		if diff := cmp.Diff(want, w.of(counters(sent), start.Add(at))); diff != "" {
			t.Errorf("after %v (-want +got):\n%s", at, diff)
		}
	}
	expect(0, 5, nil)
	w.note(counters(1000), start)
	expect(time.Second/2, 1001, nil)
	expect(2*time.Second, 1020, map[string]*status.Rates{"node2": {SentPackets: 10, SentBytes: 1000}})
	w.note(counters(1100), start.Add(10*time.Second))
	w.note(counters(1300), start.Add(20*time.Second))
	expect(25*time.Second, 1400, map[string]*status.Rates{"node2": {SentPackets: 20, SentBytes: 2000}})
	expect(25*time.Second, 15, map[string]*status.Rates{"node2": {SentPackets: 1, SentBytes: 100}}) // it came anew
}
