package daemon

import (
	"os"
	"runtime/debug"
)

// limitMemory bounds what lists of many nodes take that come and go. Packets allocate nothing.
// Twice the memory of a list would be too much where it is large; to collect more often always
// would cost a quarter of the time of a change. GOMEMLIMIT overrules it.
func limitMemory(prefixes int) {
	const (
		least     = 120 << 20
		perPrefix = 800 // bytes: of two Plans, and of what they are made of
	)
	if limit := max(least, int64(prefixes)*perPrefix); os.Getenv("GOMEMLIMIT") == "" && limit != debug.SetMemoryLimit(-1) {
		debug.SetMemoryLimit(limit)
	}
}
