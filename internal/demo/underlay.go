package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"

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
	exchanges := len(families) * len(to) * markerExchanges
	var frames [][]byte
	what := fmt.Sprintf("%s exchanges the marker “%s” with %s and %s, %d times",
		from.PodName, marker, to[0].PodName, to[1].PodName, exchanges)
	err := d.timed(what, func() (err error) {
		frames, err = node.Record(testnet.UnderlayLink, func() error { return sayMarker(ctx, from, to) })
		return err
	})
	if err != nil {
		return concerning(err, d.cluster.Nodes()...)
	}
	t := tell(frames)
	if d.options.sealed() {
		if err := t.mustBeSealed(exchanges); err != nil {
			return concerning(err, node)
		}
		d.ok("%d datagrams on the underlay: all sealed (%d) or QUIC (%d); the marker is in none",
			t.sealed+t.quic, t.sealed, t.quic)
		d.note("Recorded at %s's %s from the first packet on, for which QUIC agrees on keys.",
			node.Entry().Name, testnet.UnderlayLink)
		return nil
	}
	if err := t.mustBeReadable(exchanges); err != nil {
		return concerning(err, node)
	}
	d.warn("%d datagrams on the underlay: the marker can be read in %d of them", t.others, t.readable)
	d.note("Recorded at %s's %s. vxlan does not encrypt; sealed, the default, does.",
		node.Entry().Name, testnet.UnderlayLink)
	return nil
}

// sayMarker has a pod exchange the marker with others.
func sayMarker(ctx context.Context, from *testnet.Pod, to []*testnet.Pod) error {
	for _, f := range families {
		for _, pod := range to {
			c, err := converse(ctx, from.Namespace, f.of(pod.Addrs))
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

// tally is what was told of recorded frames.
type tally struct {
	sealed, quic, others int // datagrams
	readable             int // frames that hold the marker

	// strange is the first frame that is neither a datagram nor the underlay's own.
	strange []byte
}

func tell(frames [][]byte) (t tally) {
	for _, frame := range frames {
		if bytes.Contains(frame, []byte(marker)) {
			t.readable++
		}
		payload, _, ok := testnet.Datagram(frame)
		switch {
		case ok && testnet.IsQUIC(payload):
			t.quic++
		case ok && testnet.IsSealed(payload):
			t.sealed++
		case ok:
			t.others++
		case !testnet.IsNeighbourDiscovery(frame) && t.strange == nil:
			t.strange = frame
		}
	}
	return t
}

// mustBeSealed returns an error unless nothing that pods exchanged can be read.
func (t tally) mustBeSealed(exchanges int) error {
	switch {
	case t.readable > 0:
		return fmt.Errorf("the marker can be read in %d frames on the underlay", t.readable)
	case t.others > 0:
		return fmt.Errorf("%d datagrams on the underlay are neither sealed nor QUIC", t.others)
	}
	return t.mustBeComplete(t.sealed, exchanges)
}

// mustBeReadable returns an error unless the marker was seen as often as it was sent:
// who sees nothing there must not claim to see nothing where packets are sealed.
func (t tally) mustBeReadable(exchanges int) error {
	return t.mustBeComplete(t.readable, exchanges)
}

// mustBeComplete returns an error if fewer frames were seen than exchanges take, or
// something else than datagrams.
func (t tally) mustBeComplete(seen, exchanges int) error {
	switch {
	case t.strange != nil:
		return fmt.Errorf("not a datagram, on the underlay: %x", t.strange)
	case seen < 2*exchanges: // there and back
		return fmt.Errorf("of %d exchanges only %d datagrams were seen on the underlay", exchanges, seen)
	}
	return nil
}
