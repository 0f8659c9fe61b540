package daemon

import (
	"testing"
	"time"
)

func TestByTheClockWithoutClockChange(t *testing.T) {
	at := time.Now()
	for range 1000 {
		if got := byTheClock(at); !got.Equal(at) || got.Round(0) != at.Round(0) {
			t.Fatalf("%v became %v", at, got)
		}
	}
	if got := byTheClock(time.Time{}); !got.IsZero() {
		t.Errorf("a time that never was became %v", got)
	}
}
