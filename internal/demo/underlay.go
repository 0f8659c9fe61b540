package main

import (
	"context"
	"errors"
	"fmt"

	"weft/internal/family"
	"weft/internal/testnet"
)

// marker is what pods say to each other while the underlay is recorded.
const marker = "can this be read?"

// markerExchanges are made with each pod in each family, one after the other: so every
// packet is a datagram of its own.
const markerExchanges = 100

// showUnderlay records what a node sends to the others and receives from them, from
// the first packet on.
func (d *demo) showUnderlay(ctx context.Context) error {
	node, from := d.cluster.Nodes()[0], d.pods[0]
	to := []*testnet.Pod{d.pods[podsPerNode], d.pods[2*podsPerNode]}
	exchanges := len(family.All) * len(to) * markerExchanges
	var frames [][]byte
	what := fmt.Sprintf("%s exchanges the marker “%s” with %s and %s, %d times",
		from.PodName, marker, to[0].PodName, to[1].PodName, exchanges)
	err := d.Timed(what, func() (err error) {
		frames, err = node.Record(testnet.UnderlayLink, func() error { return sayMarker(ctx, from, to) })
		return err
	})
	if err != nil {
		return d.Concerning(err, d.cluster.Nodes()...)
	}
	if err := d.JudgeUnderlay(node, frames, marker, exchanges, exchanges); err != nil {
		return err
	}
	d.Note("Recorded from the first packet on, for which QUIC agrees on keys if packets are sealed.")
	return nil
}

// sayMarker has a pod exchange the marker with others.
func sayMarker(ctx context.Context, from *testnet.Pod, to []*testnet.Pod) error {
	for _, f := range family.All {
		for _, pod := range to {
			c, err := converse(ctx, from.Namespace, serverAt(f.First(pod.Addrs)))
			if err != nil {
				return err
			}
			for range markerExchanges {
				if _, err = c.exchange(marker); err != nil {
					break
				}
			}
			if err := errors.Join(err, c.Close()); err != nil {
				return fmt.Errorf("from %s to %s, %s: %w", from.PodName, pod.PodName, f, err)
			}
		}
	}
	return nil
}
