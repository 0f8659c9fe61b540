package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/stage"
	"weft/internal/testnet"
)

// atOnce bounds the probes that are under way: more would measure each other.
const atOnce = 4

// cell is one probe and its outcome.
type cell struct {
	from, to place
	family   stage.Family
	took     time.Duration
	seenAs   netip.Addr
	err      error
}

// probe fills the outcome in: to must answer, and see from as it may.
func (c *cell) probe(ctx context.Context) {
	c.took, c.seenAs, c.err = probe(ctx, c.from.ns, c.family.Of(c.to.addrs))
	if allowed := c.from.seenBy(c.to); c.err == nil && !slices.Contains(allowed, c.seenAs) {
		c.err = fmt.Errorf("%s sees %s as %s, which is none of %v", c.to.name, c.from.name, c.seenAs, allowed)
	}
}

// probeAll probes every cell and returns what failed.
func probeAll(ctx context.Context, cells []*cell) error {
	var group errgroup.Group
	group.SetLimit(atOnce)
	for _, c := range cells {
		group.Go(func() error {
			c.probe(ctx)
			return nil
		})
	}
	_ = group.Wait() // the outcomes are in the cells
	return judge(ctx, cells)
}

// judge returns an error that tells of the first few cells that failed, and whose
// logs may explain it.
func judge(ctx context.Context, cells []*cell) error {
	const told = 5
	var errs []error
	var nodes []*testnet.Node
	for _, c := range cells {
		if c.err == nil {
			continue
		}
		errs = append(errs, fmt.Errorf("%s to %s, %s: %w", c.from.name, c.to.name, c.family, c.err))
		nodes = append(nodes, c.from.node, c.to.node)
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case len(errs) == 0:
		return nil
	}
	err := fmt.Errorf("%d of %d probes failed:\n%w", len(errs), len(cells), errors.Join(errs[:min(told, len(errs))]...))
	return stage.Concerning(err, nodes...)
}

// cross makes a cell for each pair, but for those of which the overlay has no part.
func cross(f stage.Family, from, to []place) []*cell {
	var cells []*cell
	for _, a := range from {
		for _, b := range to {
			if a.ns != b.ns && (a.pod || b.pod) {
				cells = append(cells, &cell{from: a, to: b, family: f})
			}
		}
	}
	return cells
}

func (d *demo) showReachability(ctx context.Context) error {
	pods, nodes, err := d.places()
	if err != nil {
		return err
	}
	from := slices.Concat(pods, nodes)
	to := append(slices.Concat(pods, nodes), d.outsidePlace())
	var all []*cell
	for _, f := range stage.Families {
		cells := cross(f, from, to)
		all = append(all, cells...)
		_ = probeAll(ctx, cells) // judged below, when both tables are printed
		d.printMatrix(f, from, to, cells)
	}
	if err := judge(ctx, all); err != nil {
		return err
	}
	d.OK("%d probes, each a TCP connection: all answered, all seen by the address they should be", len(all))
	d.Note("Figures are round trips in µs. Blank: a host to itself, and pairs without a pod.")
	return nil
}

func (d *demo) printMatrix(f stage.Family, from, to []place, cells []*cell) {
	d.Matrix(f.String(), names(from), names(to), func(a, b int) (string, error) {
		i := slices.IndexFunc(cells, func(c *cell) bool { return c.from.ns == from[a].ns && c.to.ns == to[b].ns })
		if i < 0 {
			return "", nil
		}
		return fmt.Sprint(cells[i].took.Microseconds()), cells[i].err
	})
}

func names(places []place) (names []string) {
	for _, p := range places {
		names = append(names, p.name)
	}
	return names
}
