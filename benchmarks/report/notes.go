package report

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"weft/benchmarks/result"
	"weft/benchmarks/system"
)

// drops lists which packets systems themselves lost, and why.
func drops(w io.Writer, r *result.Run) {
	var lines []string
	for _, p := range r.Profiles {
		for _, s := range r.Systems {
			for _, counter := range dropCounters(r) {
				if where := dropsBy(r, p.Name, s.Name, counter); where != "" {
					lines = append(lines, fmt.Sprintf("  %s, %s, %s:%s", p.Name, s.Name, dropTitle(counter), where))
				}
			}
		}
	}
	if len(lines) > 0 {
		fmt.Fprintf(w, "\npackets lost inside of systems, in all repeats (a source at full speed sends more than any takes)\n%s\n",
			strings.Join(lines, "\n"))
	}
}

// dropsBy lists how many a counter counted in each cell.
func dropsBy(r *result.Run, profile, name, counter string) (list string) {
	for _, cell := range r.Cells {
		if total := r.Total(profile, name, cell, counter); total > 0 {
			list += fmt.Sprintf(" %s %d", cell, total)
		}
	}
	return list
}

// dropCounters are the counters of the run that count drops.
func dropCounters(r *result.Run) []string {
	found := map[string]bool{}
	for _, s := range r.Samples {
		for counter := range s.Counters {
			if dropTitle(counter) != "" {
				found[counter] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// dropTitle says what a counter counts; nothing if it does not count drops.
func dropTitle(counter string) string {
	switch counter {
	case system.DeviceDrops:
		return "queue of the device full"
	case system.NodeSocketDrops:
		return "socket of the overlay full"
	}
	reason, _ := system.DropReason(counter)
	return reason
}

// failures lists measurements that gave no values.
func failures(w io.Writer, r *result.Run) {
	for _, s := range r.Samples {
		if s.Error != "" {
			fmt.Fprintf(w, "\nFAILED: %s, %s, %s, repeat %d: %s\n", s.Profile, s.System, s.Cell, s.Repeat+1, s.Error)
		}
	}
}
