package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"weft/internal/stage"
	"weft/kubernetes"
)

// atOnce bounds the pods that ask at the same time: more would measure each other.
const atOnce = 2

// cell is one probe and its outcome.
type cell struct {
	from, to place
	family   stage.Family
	seenAs   netip.Addr
	rtt      string // the shortest of some round trips, in µs
	err      error
}

// ask is run in a pod, with the address and the URL of each of those that it asks.
const ask = `
while [ $# -gt 0 ]; do
	echo "to $1"
	busybox timeout 5 busybox wget -q -O - "$2" 2>&1
	busybox ping -q -A -c 5 -W 2 "$1" 2>&1
	shift 2
done
exit 0`

// cross makes a cell for each pair, but for those of which the overlay has no part.
func cross(f stage.Family, from, to []place) []*cell {
	var cells []*cell
	for _, a := range from {
		for _, b := range to {
			if a.name != b.name && (a.isPod() || b.isPod()) {
				cells = append(cells, &cell{from: a, to: b, family: f})
			}
		}
	}
	return cells
}

// run runs a program in the pod of a place, and returns what it prints.
type run func(ctx context.Context, in place, command ...string) (string, error)

// inPod runs programs as `kubectl exec` does.
func (d *demo) inPod(ctx context.Context, in place, command ...string) (string, error) {
	return d.Admin.Exec(ctx, in.pod.Namespace, in.pod.Name, command...)
}

// probeAll probes every cell and returns what failed.
func probeAll(ctx context.Context, cells []*cell, run run) error {
	bySource := make(map[string][]*cell)
	for _, c := range cells {
		bySource[c.from.name] = append(bySource[c.from.name], c)
	}
	var group errgroup.Group
	group.SetLimit(atOnce)
	for _, same := range bySource {
		group.Go(func() error {
			probe(ctx, same, run)
			return nil
		})
	}
	_ = group.Wait() // the outcomes are in the cells
	return judge(ctx, cells)
}

// probe fills in the outcomes of cells that start at the same place.
func probe(ctx context.Context, cells []*cell, run run) {
	command := []string{"sh", "-c", ask, "sh"}
	for _, c := range cells {
		command = append(command, c.family.Of(c.to.addrs).String(), kubernetes.WhoamiURL(c.to.server(c.family)))
	}
	out, err := run(ctx, cells[0].from, command...)
	answers := strings.Split("\n"+out, "\nto ")[1:]
	for i, c := range cells {
		switch {
		case err != nil:
			c.err = err
		case i >= len(answers):
			c.err = errors.New("it was not asked")
		default:
			c.err = c.read(answers[i])
		}
	}
}

// read takes what a pod got from one that it asked.
func (c *cell) read(text string) error {
	lines := strings.SplitN(text, "\n", 3)
	if len(lines) < 3 {
		return fmt.Errorf("the output is %q", text)
	}
	answer, err := kubernetes.ParseAnswer(lines[1])
	if err != nil {
		return err
	}
	if c.seenAs = answer.Client; c.seenAs != c.family.Of(c.from.seenAs) {
		return fmt.Errorf("%s sees %s as %s, not as %s", c.to.name, c.from.name, c.seenAs, c.family.Of(c.from.seenAs))
	}
	// In a node's own network, the host name is the machine's.
	if c.to.isPod() && answer.Server != c.to.pod.Name {
		return fmt.Errorf("%s has answered instead of %s", answer.Server, c.to.pod.Name)
	}
	c.rtt, err = shortest(lines[2])
	return err
}

// shortest reads ping's summary.
func shortest(summary string) (microseconds string, err error) {
	_, figures, _ := strings.Cut(summary, "min/avg/max = ")
	least, _, _ := strings.Cut(figures, "/")
	milliseconds, err := strconv.ParseFloat(least, 64)
	if err != nil {
		return "", fmt.Errorf("ping says: %q", summary)
	}
	return fmt.Sprintf("%.0f", milliseconds*1000), nil
}

// judge returns an error that tells of the first few cells that failed.
func judge(ctx context.Context, cells []*cell) error {
	const told = 5
	var errs []error
	for _, c := range cells {
		if c.err != nil {
			errs = append(errs, fmt.Errorf("%s to %s, %s: %w", c.from.name, c.to.name, c.family, c.err))
		}
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case len(errs) == 0:
		return nil
	}
	return fmt.Errorf("%d of %d probes failed:\n%w", len(errs), len(cells), errors.Join(errs[:min(told, len(errs))]...))
}
