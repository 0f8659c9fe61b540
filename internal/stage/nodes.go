package stage

import (
	"context"
	"fmt"

	"weft/internal/testnet"
)

// ClusterOptions are those of a cluster as the demo was asked for it. configure, unless it
// is nil, may change the weft.yaml of each node further.
func (d *Demo) ClusterOptions(nodes int, configure func(weft map[string]any)) testnet.ClusterOptions {
	return testnet.ClusterOptions{Nodes: nodes, Sealed: d.Sealed(), Configure: func(weft map[string]any) {
		if d.Driver != "" {
			weft["tun"].(map[string]any)["driver"] = d.Driver
		}
		if configure != nil {
			configure(weft)
		}
	}}
}

// StartNode starts weftd on a node. remark is printed after what the node has by itself.
func (d *Demo) StartNode(ctx context.Context, node *testnet.Node, remark string) error {
	what := fmt.Sprintf("%s  weftd is ready on %s%s", node.Entry().Name, node.Entry().Endpoint, remark)
	if key := node.Entry().Key; key != "" {
		what += fmt.Sprintf("  its key is %.16s…", key)
	}
	return d.Timed(what, func() error { return node.Start(ctx) })
}

// JudgeUnderlay prints what can be read in frames that were recorded on a node's underlay
// link while pods exchanged a marker; or returns an error if that is not as it must be.
// echoes are the exchanges in which the marker is sent there and back.
func (d *Demo) JudgeUnderlay(node *testnet.Node, frames [][]byte, marker string, exchanges, echoes int) error {
	t := TallyOf(frames, marker)
	link := node.Entry().Name + "'s " + testnet.UnderlayLink
	if !d.Sealed() {
		if err := t.MustBeReadable(echoes); err != nil {
			return d.Concerning(err, node)
		}
		d.Warn("%d datagrams on %s: the marker can be read in %d of them", t.Others, link, t.Readable)
		d.Note("vxlan does not encrypt; sealed, the default, does.")
		return nil
	}
	if err := t.MustBeSealed(exchanges); err != nil {
		return d.Concerning(err, node)
	}
	d.OK("%d datagrams on %s: all sealed (%d) or QUIC (%d); the marker is in none", t.Sealed+t.QUIC, link, t.Sealed, t.QUIC)
	return nil
}
