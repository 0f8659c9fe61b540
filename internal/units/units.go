// Package units formats amounts for people, in the commands' output and on the status page alike.
package units

import "fmt"

// Bytes formats an amount of bytes with a binary unit.
func Bytes(n uint64) string {
	const units = "KMGTPE"
	const next = 1023.95 // what would be rounded to 1024.0
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for ; value >= next && unit < len(units)-1; unit++ {
		value /= 1024
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

// BitRate formats bytes a second as bits a second, with a decimal unit as links have them.
func BitRate(bytes float64) string {
	const units = "kMGTPE"
	const next = 999.95
	value := 8 * bytes
	if value < 999.5 {
		return fmt.Sprintf("%.0f b/s", value)
	}
	value /= 1000
	unit := 0
	for ; value >= next && unit < len(units)-1; unit++ {
		value /= 1000
	}
	return fmt.Sprintf("%.1f %cb/s", value, units[unit])
}
