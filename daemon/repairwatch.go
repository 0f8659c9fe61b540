package daemon

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"weft/internal/hostnet"
	"weft/internal/warning"
)

// repairsLately is for how long weftd warns of what it had to restore: as long as the alert
// WeftHostRepairs looks back.
const repairsLately = 15 * time.Minute

// repairWatch knows what weftd had to restore on the host lately. It compares counters.
type repairWatch struct {
	samples []repairSample // at most one for each look of repairsLately, and one before
}

// repairSample are the counters from a time on.
type repairSample struct {
	at     time.Time
	counts map[string]uint64
}

// restored is what the counters count, and from how many repairs on weftd warns.
// No fault but another program's removes a table; a few routes or sysctls are lost when the host's network
// is configured anew.
var restored = []struct {
	object string
	name   string // as an operator knows it
	harm   string
	least  uint64
}{
	{hostnet.RepairedGuard, "the guard table", ", and without it pods' packets could leave in clear", 1},
	{hostnet.RepairedBridge, "the table bridge weft", ", and without it the guard table drops frames of VMs", 1},
	{hostnet.RepairedNetwork, "weft's routes, rules, addresses or sysctls", "", 6},
}

// look compares the counters with those of before.
func (w *repairWatch) look(counts map[string]uint64, now time.Time) (all []warning.Warning) {
	if len(w.samples) == 0 {
		w.samples = []repairSample{{now, map[string]uint64{}}}
	}
	if !maps.Equal(counts, w.samples[len(w.samples)-1].counts) {
		w.samples = append(w.samples, repairSample{now, counts})
	}
	for len(w.samples) > 1 && now.Sub(w.samples[1].at) >= repairsLately {
		w.samples = slices.Delete(w.samples, 0, 1)
	}
	for _, r := range restored {
		n := counts[r.object] - w.samples[0].counts[r.object]
		if n < r.least {
			continue
		}
		all = append(all, warning.Warning{Code: "host_repaired", Text: fmt.Sprintf(
			"another program removed or changed %s, %s in the last %d minutes%s; weftd has restored it: look for a program that flushes what is not its own, as `nft flush ruleset` in a script, or a network manager (`weft doctor`)",
			r.name, times(n), int(repairsLately.Minutes()), r.harm)})
	}
	return all
}

func times(n uint64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}
