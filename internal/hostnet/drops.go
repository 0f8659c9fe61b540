package hostnet

import (
	"weft/internal/marks"
	"weft/internal/nftable"
)

// Drops returns how many packets each drop rule of the guard table has dropped, by the rule's
// counter. The counts survive restarts of weftd.
func Drops() (map[string]uint64, error) {
	counters, err := nftable.Counters(nftable.Inet, marks.Table)
	packets := make(map[string]uint64, len(counters))
	for name, c := range counters {
		packets[name] = c.Packets
	}
	return packets, err
}
