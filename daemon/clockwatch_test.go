package daemon

import (
	"strings"
	"testing"
	"time"
)

// Each step is one look at the clock, which is set by so much before it.
func TestClockJumpsAreNoticed(t *testing.T) {
	type look struct {
		after, set time.Duration
		want       string // in the warning; "" is none
	}
	const year = 365 * 24 * time.Hour
	for _, tt := range []struct {
		name  string
		looks []look
	}{
		{"the clock runs on", []look{{0, 0, ""}, {5 * time.Second, 0, ""}, {time.Hour, 0, ""}}},
		{"set forward, and left so", []look{
			{0, 0, ""}, {5 * time.Second, year, "set forward by 8760h0m0s, to 2027-06-01T00:00:05Z; "},
			{5 * time.Second, 0, "set forward by 8760h0m0s, to 2027-06-01T00:00:05Z; "}, {clockJumpLately, 0, ""}, {5 * time.Second, 0, ""},
		}},
		{"set back", []look{{0, 0, ""}, {5 * time.Second, -year, "set back by 8760h0m0s, to 2025-06-01T00:00:05Z; "}}},
		{"set, and set right again", []look{{0, 0, ""}, {5 * time.Second, year, "forward"}, {5 * time.Second, -year, ""}, {5 * time.Second, 0, ""}}},
		{"set twice", []look{{0, 0, ""}, {5 * time.Second, year, "by 8760h0m0s"}, {5 * time.Second, year, "by 17520h0m0s, to 2028-05-31T00:00:10Z; "}}},
		{"set again after an hour", []look{
			{0, 0, ""}, {5 * time.Second, year, "by 8760h0m0s"}, {clockJumpLately + time.Second, 0, ""}, {5 * time.Second, -time.Hour, "set back by 1h0m0s"},
		}},
		{"slewed", []look{{0, 0, ""}, {time.Hour, 2 * time.Second, ""}, {24 * time.Hour, 43 * time.Second, ""}, {24 * time.Hour, 43 * time.Second, ""}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var w clockWatch
			now, up := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC), time.Minute
			for i, l := range tt.looks {
				now, up = now.Add(l.after+l.set), up+l.after
				got := ""
				if all := w.look(now, up); len(all) > 0 {
					got = all[0].Text
				}
				if got == "" != (l.want == "") || !strings.Contains(got, l.want) {
					t.Errorf("look %d: %q, want %q", i, got, l.want)
				}
			}
		})
	}
}
