// Package monitoring has no code of weft's. Its tests keep docs/METRICS.md as the code and the
// rules of deploy/prometheus have it.
package monitoring
