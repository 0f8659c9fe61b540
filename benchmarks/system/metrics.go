package system

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"weft/internal/testnet"
)

// addMetrics adds every counter of weftd's own, under its name in /metrics.
func addMetrics(ctx context.Context, nodes [2]*testnet.Node, to Counters) error {
	for _, n := range nodes {
		text, err := n.Get(ctx, "/metrics")
		if err != nil {
			return fmt.Errorf("read the metrics of %s: %w", n.Entry().Name, err)
		}
		if err := parseMetrics(text, to); err != nil {
			return fmt.Errorf("read the metrics of %s: %w", n.Entry().Name, err)
		}
	}
	return nil
}

// weftCounter matches a counter with its labels, by the convention that names of
// counters end in _total: https://prometheus.io/docs/practices/naming
var weftCounter = regexp.MustCompile(`^(weft_[a-z_]+_total(?:\{[^}]*\})?) (\S+)$`)

// parseMetrics adds weft's counters in Prometheus's text format to c.
func parseMetrics(text string, c Counters) error {
	for line := range strings.Lines(text) {
		match := weftCounter.FindStringSubmatch(strings.TrimSpace(line))
		if match == nil {
			continue
		}
		value, err := strconv.ParseFloat(match[2], 64) // large ones are written as 1.5e+09
		if err != nil {
			return fmt.Errorf("%s: %w", match[1], err)
		}
		c[match[1]] += uint64(value)
	}
	return nil
}

// dropPrefix begins the names of weftd's counters of drops.
const dropPrefix = `weft_drops_total{reason="`

// DropReason returns the reason of a counter of weftd's that counts drops.
func DropReason(counter string) (string, bool) {
	rest, ok := strings.CutPrefix(counter, dropPrefix)
	if !ok {
		return "", false
	}
	return strings.TrimSuffix(rest, `"}`), true
}
