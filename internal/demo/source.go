package main

import (
	"context"

	"weft/internal/stage"
)

// showSourceAddresses has one pod talk to servers everywhere and prints as whom
// they see it.
func (d *demo) showSourceAddresses(ctx context.Context) error {
	pods, nodes, err := d.places()
	if err != nil {
		return err
	}
	client := pods[0]
	outside := d.outsidePlace()
	for _, f := range stage.Families {
		d.Line("%s", d.Paint(stage.Bold, "the server in                    sees "+client.name+" as"))
		var cells []*cell
		for _, server := range []struct {
			place
			about string
		}{
			{pods[1], "on the same node"},
			{pods[podsPerNode], "on another node"},
			{nodes[0], "the pod's own node"},
			{nodes[1], "another node"},
			{outside, "through masquerade"},
		} {
			c := &cell{from: client, to: server.place, family: f}
			c.probe(ctx)
			cells = append(cells, c)
			d.printSource(c, server.about)
		}
		if err := judge(ctx, cells); err != nil {
			return err
		}
		d.Gap()
	}
	d.Note("Within the cluster nothing is translated; outside, a pod is its node.")
	return nil
}

func (d *demo) printSource(c *cell, about string) {
	where := stage.PadRight(c.to.name, 9) + stage.PadRight(about, 22)
	switch {
	case c.err != nil:
		d.Line("%s%s", where, d.Paint(stage.Red, "✗ "+c.err.Error()))
	case c.to.node == nil:
		d.OK("%s%-16s its node's", where, c.seenAs)
	default:
		d.OK("%s%-16s its own", where, c.seenAs)
	}
}
