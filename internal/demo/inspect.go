package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"weft/internal/testnet"
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
		return concerning(err, node)
	}
	d.line("%s", d.paint(bold, "GET /metrics on "+node.Entry().Name)+d.paint(faint, "  (drop reasons that never occurred are left out)"))
	for line := range strings.Lines(metrics) {
		if isShown(line) {
			d.block(line)
		}
	}
	if err := d.showCommand(ctx, node, "status"); err != nil || !d.options.sealed() {
		return err
	}
	return d.showCommand(ctx, node, "peers")
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

// showCommand asks the operator's command, which the demo can do without.
func (d *demo) showCommand(ctx context.Context, node *testnet.Node, command string) error {
	weft, err := filepath.Abs(filepath.Join(d.options.bin, "weft"))
	if err != nil {
		return err
	}
	if _, err := os.Stat(weft); err != nil {
		d.note("`weft %s` is not shown: there is no %s.", command, weft)
		return nil
	}
	out, err := node.Exec(ctx, weft, "--socket", node.Socket(), command)
	if err != nil {
		return concerning(err, node)
	}
	d.gap()
	d.line("%s", d.paint(bold, "weft "+command+" on "+node.Entry().Name))
	d.block(out)
	return nil
}
