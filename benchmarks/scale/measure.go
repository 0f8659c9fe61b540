package scale

import (
	"context"
	"errors"
	"slices"
	"time"

	"weft/benchmarks/result"
)

// Options say what is measured.
type Options struct {
	Source   string
	Nodes    int // simulated ones
	CIDRs    int // of each node that is listed in a file; registered ones have one of each family
	Changes  int // of each kind
	Starts   int
	Idle     time.Duration
	Programs Programs
}

// cidrs is how many a node has. Registered nodes have one of each family: neither etcd nor
// Kubernetes gives them more.
func (o Options) cidrs() int {
	if o.Source == File {
		return o.CIDRs
	}
	return 2
}

// part measures some cells.
type part struct {
	first   string // its first cell
	measure func(context.Context) ([]result.Sample, error)
}

// Measure measures all cells of a source with a number of nodes, and hands each sample over.
// After one that failed there is no other.
func Measure(ctx context.Context, o Options, report func(result.Sample)) {
	s, err := newSite(ctx, o)
	if err != nil {
		report(o.failed(Start, err))
		return
	}
	parts := []part{{Start, s.measureStarts}, {Address, s.measureChanges}, {Mass, s.measureMass}, {Idle, s.measureIdle}}
	if _, registers := s.directory.(registry); !registers {
		parts = slices.DeleteFunc(parts, func(p part) bool { return p.first == Mass })
	}
	for _, p := range parts {
		samples, err := p.measure(ctx)
		if err != nil {
			report(o.failed(p.first, errors.Join(err, s.node.Crashed(), errors.New(s.node.LogTail(10)), s.close())))
			return
		}
		for _, sample := range samples {
			report(sample)
		}
	}
	if err := errors.Join(s.verify(ctx), s.close()); err != nil {
		report(o.failed(Idle, err))
	}
}

func (o Options) sample(cell string) result.Sample {
	return result.NewSample(Profile(o.Nodes), o.Source, cell, 0)
}

func (o Options) failed(cell string, err error) result.Sample {
	s := o.sample(cell)
	s.Fail(err)
	return s
}

// measureStarts starts weftd some times without a snapshot, where sources write one, and
// some times as it is restarted otherwise.
func (s *site) measureStarts(ctx context.Context) ([]result.Sample, error) {
	sample := s.sample(Start)
	_, registers := s.directory.(registry)
	for i := range s.Starts {
		if registers {
			if i > 0 {
				if err := errors.Join(s.node.Stop(ctx), s.forget()); err != nil {
					return nil, err
				}
			}
			if err := s.timeStart(ctx, &sample, Cold); err != nil {
				return nil, err
			}
		} else if i == 0 {
			if err := s.start(ctx); err != nil {
				return nil, err
			}
		}
		if err := s.timeStart(ctx, &sample, Restart); err != nil {
			return nil, err
		}
	}
	spent, err := s.cpuTime()
	if err != nil {
		return nil, err
	}
	sample.Values[CPU] = spent
	for kind := range sample.Calls {
		sample.Values[kind] = seconds(&sample, kind, 50)
	}
	return []result.Sample{sample}, nil
}

// timeStart starts weftd, and notes how much memory that took at most. If it runs, it is
// stopped first, which counts.
func (s *site) timeStart(ctx context.Context, sample *result.Sample, kind string) error {
	began := time.Now()
	err := sample.Spend(func() error {
		if err := s.node.Stop(ctx); err != nil {
			return err
		}
		return s.start(ctx)
	})
	sample.Call(kind, time.Since(began))
	if err != nil {
		return err
	}
	_, peak, err := s.memory()
	sample.Values[Peak] = max(sample.Values[Peak], peak)
	return err
}

// seconds is a percentile of a sample's calls.
func seconds(s *result.Sample, kind string, percent float64) float64 {
	return s.Percentile(kind, percent) / 1000
}

// measureChanges has one node after the other leave, join again, and move. The kinds take
// turns, so that what drifts meets all alike; and the guard, which keeps peers of which
// too many leave, lets each go.
func (s *site) measureChanges(ctx context.Context) ([]result.Sample, error) {
	watch, err := watchRoutes(s.node.Namespace)
	if err != nil {
		return nil, err
	}
	defer watch.close()
	join, leave, address := s.sample(Join), s.sample(Leave), s.sample(Address)
	r, registers := s.directory.(registry)
	for i := range s.Changes {
		number := i * len(s.nodes) / s.Changes
		n := s.nodes[number]
		if registers {
			if err := change(ctx, &leave, watch, peerEvents(n, true), func() error { return r.leave(ctx, n) }); err != nil {
				return nil, err
			}
			if err := change(ctx, &join, watch, peerEvents(n, false), func() error { return r.join(ctx, n) }); err != nil {
				return nil, err
			}
		}
		moved := s.moved(number)
		if err := change(ctx, &address, watch, moveEvents(n, moved), func() error { return s.directory.move(ctx, moved) }); err != nil {
			return nil, err
		}
		s.nodes[number] = moved
	}
	samples := []result.Sample{address}
	if registers {
		samples = []result.Sample{join, leave, address}
	}
	for _, sample := range samples {
		sample.Values[P50], sample.Values[P99] = seconds(&sample, sample.Cell, 50), seconds(&sample, sample.Cell, 99)
	}
	return samples, nil
}

// change writes a change, and counts from when that is acknowledged until the kernel has
// reported the last of the events.
func change(ctx context.Context, sample *result.Sample, watch *routeWatch, events []event, write func() error) error {
	ctx, cancel := context.WithTimeout(ctx, changeLimit)
	defer cancel()
	return sample.Spend(func() error {
		watch.expect(events)
		if err := write(); err != nil {
			return err
		}
		acknowledged := time.Now()
		at, err := watch.wait(ctx)
		sample.Call(sample.Cell, max(0, at.Sub(acknowledged)))
		return err
	})
}

// measureMass has all nodes write another endpoint and key, some at the same time, as after
// an outage of the whole site.
func (s *site) measureMass(ctx context.Context) ([]result.Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, allLimit)
	defer cancel()
	watch, err := watchRoutes(s.node.Namespace)
	if err != nil {
		return nil, err
	}
	defer watch.close()
	var events []event
	for number, n := range s.nodes {
		s.nodes[number] = s.moved(number)
		events = append(events, moveEvents(n, s.nodes[number])...)
	}
	before, err := s.cpuTime()
	if err != nil {
		return nil, err
	}
	sample := s.sample(Mass)
	err = sample.Spend(func() error {
		watch.expect(events)
		if err := each(ctx, s.nodes, s.directory.move); err != nil {
			return err
		}
		written := time.Now()
		at, err := watch.wait(ctx)
		sample.Values["written"] = written.Sub(sample.Started).Seconds()
		sample.Values["after"] = max(0, at.Sub(written)).Seconds()
		return err
	})
	if err != nil {
		return nil, err
	}
	after, err := s.cpuTime()
	if err != nil {
		return nil, err
	}
	sample.Values[CPU] = (after - before)
	_, sample.Values[Peak], err = s.memory()
	return []result.Sample{sample}, err
}

// measureIdle leaves weftd alone.
func (s *site) measureIdle(ctx context.Context) ([]result.Sample, error) {
	sample := s.sample(Idle)
	prefixes, err := s.metric(ctx, "weft_fib_prefixes")
	if err != nil {
		return nil, err
	}
	sample.Values[Prefixes] = prefixes
	before, err := s.cpuTime()
	if err != nil {
		return nil, err
	}
	err = sample.Spend(func() error {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(s.Idle):
			return nil
		}
	})
	if err != nil {
		return nil, err
	}
	after, err := s.cpuTime()
	if err != nil {
		return nil, err
	}
	sample.Values[CPU] = 100 * (after - before) / time.Since(sample.Started).Seconds()
	sample.Values[Resident], sample.Values[Peak], err = s.memory()
	return []result.Sample{sample}, err
}
