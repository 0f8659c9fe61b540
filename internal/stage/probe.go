package stage

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/family"
	"weft/internal/testnet"
)

// Place is a pod or a host with a server, where a probe starts or ends.
type Place struct {
	Name string
	Node *testnet.Node // where it is; nil for the host outside
	Pod  bool

	// Addrs are where others reach it, at most one in each family, and Port is its server's.
	Addrs []netip.Addr
	Port  string

	// HostName is what its server must say that it is; empty if it need not say that.
	HostName string

	// Inside are the addresses as which pods and nodes may see it, Outside those as which
	// the host outside may.
	Inside, Outside []netip.Addr

	// Ask fills in the outcomes of probes that start here.
	Ask func(ctx context.Context, probes []*Probe)
}

// Server is where its server is.
func (p *Place) Server(f family.Family) string {
	return net.JoinHostPort(f.First(p.Addrs).String(), p.Port)
}

// seenBy returns the addresses as which to may see a client at p.
func (p *Place) seenBy(to *Place) []netip.Addr {
	if to.Node == nil {
		return p.Outside
	}
	return p.Inside
}

// Probe is a question that one place puts to another, and its outcome.
type Probe struct {
	From, To *Place
	Family   family.Family

	Took   time.Duration // the shortest round trip
	SeenAs netip.Addr    // From's address, as To sees it
	Err    error
}

// atOnce bounds the places that ask at the same time: more would measure each other.
const atOnce = 2

// Cross makes a probe for each pair in each family, but for pairs of which the overlay has
// no part.
func Cross(from, to []*Place) (probes []*Probe) {
	for _, f := range family.All {
		for _, a := range from {
			for _, b := range to {
				if a.Name != b.Name && (a.Pod || b.Pod) {
					probes = append(probes, &Probe{From: a, To: b, Family: f})
				}
			}
		}
	}
	return probes
}

// ProbeAll does the probes and returns what failed: each must be answered, and see its
// client as it may.
func (d *Demo) ProbeAll(ctx context.Context, probes []*Probe) error {
	bySource := make(map[string][]*Probe)
	for _, p := range probes {
		bySource[p.From.Name] = append(bySource[p.From.Name], p)
	}
	var group errgroup.Group
	group.SetLimit(atOnce)
	for _, same := range bySource {
		group.Go(func() error {
			same[0].From.Ask(ctx, same)
			return nil
		})
	}
	_ = group.Wait() // the outcomes are in the probes
	for _, p := range probes {
		if allowed := p.From.seenBy(p.To); p.Err == nil && !slices.Contains(allowed, p.SeenAs) {
			p.Err = fmt.Errorf("%s sees %s as %s, which is none of %v", p.To.Name, p.From.Name, p.SeenAs, allowed)
		}
	}
	return d.judge(ctx, probes)
}

// judge returns an error that lists the first few probes that failed, and whose logs
// may explain it.
func (d *Demo) judge(ctx context.Context, probes []*Probe) error {
	const reported = 5
	var errs []error
	var nodes []*testnet.Node
	for _, p := range probes {
		if p.Err != nil {
			errs = append(errs, fmt.Errorf("%s to %s, %s: %w", p.From.Name, p.To.Name, p.Family, p.Err))
			nodes = append(nodes, p.From.Node, p.To.Node)
		}
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case len(errs) == 0:
		return nil
	}
	err := fmt.Errorf("%d of %d probes failed:\n%w", len(errs), len(probes), errors.Join(errs[:min(reported, len(errs))]...))
	return d.Concerning(err, nodes...)
}

// ShowReachability probes each pair and prints a matrix for each family. about says what a
// probe is.
func (d *Demo) ShowReachability(ctx context.Context, from, to []*Place, about string) ([]*Probe, error) {
	probes := Cross(from, to)
	err := d.ProbeAll(ctx, probes)
	for _, f := range family.All {
		d.matrix(f, from, to, probes)
	}
	if err != nil {
		return nil, err
	}
	d.OK("%d probes, each %s: all answered, all seen by the address they should be", len(probes), about)
	d.Note("Figures are the shortest round trips in µs. Blank: a host to itself, and pairs without a pod.")
	return probes, nil
}

// matrix prints a table of probes, with one row for each source.
func (d *Demo) matrix(f family.Family, from, to []*Place, probes []*Probe) {
	const width = 8
	header := []string{PadRight(f.String(), width)}
	for _, b := range to {
		header = append(header, padLeft(b.Name, width))
	}
	d.Line("%s", d.Paint(Bold, strings.Join(header, "")))
	for _, a := range from {
		row := []string{PadRight(a.Name+" →", width)}
		for _, b := range to {
			i := slices.IndexFunc(probes, func(p *Probe) bool { return p.From == a && p.To == b && p.Family == f })
			switch {
			case i < 0:
				row = append(row, padLeft("", width))
			case probes[i].Err != nil:
				row = append(row, d.Paint(Red, padLeft("✗", width)))
			default:
				row = append(row, d.Paint(Green, padLeft(fmt.Sprint(probes[i].Took.Microseconds()), width)))
			}
		}
		d.Line("%s", strings.TrimRight(strings.Join(row, ""), " "))
	}
	d.Gap()
}

// ShowSources prints by which address the servers saw a pod, in probes that have succeeded.
func (d *Demo) ShowSources(client *Place, probes []*Probe) {
	d.Line("%s", d.Paint(Bold, "the server in                    sees "+client.Name+" as"))
	note := "Within the cluster nothing is translated."
	for _, p := range probes {
		if p.From.Name != client.Name {
			continue
		}
		about, whose := "on another node", "its own"
		switch here := p.To.Node == client.Node; {
		case p.To.Node == nil:
			about, whose = "through masquerade", "its node's"
			note = "Within the cluster nothing is translated; outside, a pod is its node."
		case !p.To.Pod && here:
			about = "the pod's own node"
		case !p.To.Pod:
			about = "another node"
		case here:
			about = "on the same node"
		}
		d.OK("%-9s%-22s%-20s %s", p.To.Name, about, p.SeenAs, whose)
	}
	d.Note("%s", note)
}
