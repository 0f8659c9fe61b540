package system

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"weft/internal/testnet"
)

// addMetrics adds every counter of weftd's own, under its name in /metrics.
func addMetrics(ctx context.Context, nodes [2]*testnet.Node, to Counters) error {
	for _, n := range nodes {
		metrics, err := n.Metrics(ctx)
		if err == nil {
			err = to.addMetrics(metrics)
		}
		if err != nil {
			return fmt.Errorf("read the metrics of %s: %w", n.Entry().Name, err)
		}
	}
	return nil
}

// addMetrics adds weft's counters, whose names end in _total by convention:
// https://prometheus.io/docs/practices/naming
func (c Counters) addMetrics(metrics map[string]string) error {
	for metric, text := range metrics {
		name, _, _ := strings.Cut(metric, "{")
		if !strings.HasPrefix(name, "weft_") || !strings.HasSuffix(name, "_total") {
			continue
		}
		value, err := strconv.ParseFloat(text, 64) // large ones are written as 1.5e+09
		if err != nil {
			return fmt.Errorf("%s: %w", metric, err)
		}
		c[metric] += uint64(value)
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
