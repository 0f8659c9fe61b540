package daemon

import (
	"strings"
	"testing"
	"time"

	"weft/internal/hostnet"
)

// Each step is one look at the counters, so long after the one before.
func TestRepairsAreNamedForAWhile(t *testing.T) {
	type look struct {
		after          time.Duration
		guard, network uint64
		want           string // in the warning; "" is none
	}
	for _, tt := range []struct {
		name  string
		looks []look
	}{
		{"nothing", []look{{0, 0, 0, ""}, {time.Hour, 0, 0, ""}}},
		{"the guard table, once", []look{
			{0, 0, 0, ""}, {time.Second, 1, 0, "changed the guard table, once in the last 15 minutes, and without it "},
			{repairsLately - time.Second, 1, 0, "once"}, {time.Second, 1, 0, ""},
		}},
		{"the guard table, before the first look", []look{{0, 2, 0, "2 times"}}},
		{"the guard table, again and again", []look{
			{0, 0, 0, ""}, {time.Second, 2, 0, "2 times"}, {repairsLately / 2, 3, 0, "3 times"}, {repairsLately / 2, 3, 0, "once"}, {repairsLately / 2, 3, 0, ""},
		}},
		{"a few routes", []look{{0, 0, 0, ""}, {time.Second, 0, 5, ""}}},
		{"many routes", []look{{0, 0, 0, ""}, {time.Second, 0, 6, "changed weft's routes, rules, addresses or sysctls, 6 times"}, {repairsLately, 0, 7, ""}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var w repairWatch
			now := time.Now()
			for i, l := range tt.looks {
				now = now.Add(l.after)
				got := ""
				if all := w.look(map[string]uint64{hostnet.RepairedGuard: l.guard, hostnet.RepairedNetwork: l.network}, now); len(all) > 0 {
					got = all[0].Text
				}
				if got == "" != (l.want == "") || !strings.Contains(got, l.want) {
					t.Errorf("look %d: %q, want %q", i, got, l.want)
				}
			}
		})
	}
}
