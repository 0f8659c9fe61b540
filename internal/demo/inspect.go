package main

import (
	"context"
	"strings"

	"weft/internal/stage"
)

// shownMetrics are the names' beginnings of the metrics that the demo picks out.
var shownMetrics = []string{
	"weft_ready", "weft_peers", "weft_fib_prefixes", "weft_packets_total", "weft_bytes_total", "weft_drops_total",
}

// showMetrics prints what an operator sees of one node.
func (d *demo) showMetrics(ctx context.Context) error {
	node := d.cluster.Nodes()[0]
	metrics, err := node.Get(ctx, "/metrics")
	if err != nil {
		return d.Concerning(err, node)
	}
	d.Line("%s", d.Paint(stage.Bold, "GET /metrics on "+node.Entry().Name)+d.Paint(stage.Faint, "  (drop reasons that never occurred are left out)"))
	for line := range strings.Lines(metrics) {
		if isShown(line) {
			d.Block(line)
		}
	}
	if err := d.ShowCommand(ctx, node, "status"); err != nil || !d.Sealed() {
		return err
	}
	return d.ShowCommand(ctx, node, "peers")
}

func isShown(line string) bool {
	if strings.HasPrefix(line, "weft_drops_total") && strings.HasSuffix(line, " 0\n") {
		return false
	}
	for _, name := range shownMetrics {
		if strings.HasPrefix(line, name) {
			return true
		}
	}
	return false
}
