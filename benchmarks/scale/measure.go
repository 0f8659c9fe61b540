package scale

import (
	"context"
	"errors"
	"slices"
	"time"

	"weft/benchmarks/machine"
	"weft/benchmarks/measure"
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

// Outcome is what the measurement of one cell yields.
type Outcome struct {
	Cell    string
	Started time.Time
	Values  measure.Values

	// Calls are how long single changes or starts took, in ms and in their order.
	Calls map[string][]float64

	// CPU is what the whole machine spent.
	CPU machine.CPU

	// Err is why there are no values. Nothing is measured after it.
	Err error
}

// part measures some cells.
type part struct {
	first   string // its first cell
	measure func(context.Context, Options) ([]Outcome, error)
}

// Measure measures all cells of a source with a number of nodes, and hands each outcome over.
func Measure(ctx context.Context, o Options, report func(Outcome)) {
	s, err := newSite(ctx, o)
	if err != nil {
		report(Outcome{Cell: Start, Err: err})
		return
	}
	parts := []part{{Start, s.measureStarts}, {Address, s.measureChanges}, {Mass, s.measureMass}, {Idle, s.measureIdle}}
	if _, registers := s.directory.(registry); !registers {
		parts = slices.DeleteFunc(parts, func(p part) bool { return p.first == Mass })
	}
	for _, p := range parts {
		outcomes, err := p.measure(ctx, o)
		if err != nil {
			report(Outcome{Cell: p.first, Err: errors.Join(err, s.node.Crashed(), errors.New(s.node.LogTail(10)), s.close())})
			return
		}
		for _, outcome := range outcomes {
			report(outcome)
		}
	}
	if err := errors.Join(s.verify(ctx), s.close()); err != nil {
		report(Outcome{Cell: Idle, Err: err})
	}
}

// take has an outcome filled, with the CPU that the machine spends meanwhile added to it.
func (o *Outcome) take(measure func() error) error {
	cpu, err := machine.StartCPU()
	if err != nil {
		return err
	}
	if err := measure(); err != nil {
		return err
	}
	spent, err := cpu.Stop()
	o.CPU.Busy += spent.Busy
	o.CPU.Steal += spent.Steal
	o.CPU.Idle += spent.Idle
	return err
}

func newOutcome(cell string) Outcome {
	return Outcome{Cell: cell, Started: time.Now(), Values: measure.Values{}, Calls: map[string][]float64{}}
}

// call notes how long something took.
func (o *Outcome) call(kind string, took time.Duration) {
	o.Calls[kind] = append(o.Calls[kind], float64(took)/float64(time.Millisecond))
}

// percentile is that of calls, in seconds.
func (o *Outcome) percentile(kind string, p float64) float64 {
	return result.Percentile(o.Calls[kind], p) / 1000
}

// measureStarts starts weftd some times without a snapshot, where sources write one, and
// some times as it is restarted otherwise.
func (s *site) measureStarts(ctx context.Context, o Options) ([]Outcome, error) {
	outcome := newOutcome(Start)
	_, registers := s.directory.(registry)
	for i := range o.Starts {
		if registers {
			if i > 0 {
				if err := errors.Join(s.node.Stop(ctx), s.forget()); err != nil {
					return nil, err
				}
			}
			if err := s.timeStart(ctx, &outcome, Cold); err != nil {
				return nil, err
			}
		} else if i == 0 {
			if err := s.start(ctx); err != nil {
				return nil, err
			}
		}
		if err := s.timeStart(ctx, &outcome, Restart); err != nil {
			return nil, err
		}
	}
	spent, err := cpuTime(s.node.PID())
	if err != nil {
		return nil, err
	}
	outcome.Values[CPU] = spent.Seconds()
	for kind := range outcome.Calls {
		outcome.Values[kind] = outcome.percentile(kind, 50)
	}
	return []Outcome{outcome}, nil
}

// timeStart starts weftd, and notes how much memory that took at most. If it runs, it is
// stopped first, which counts.
func (s *site) timeStart(ctx context.Context, o *Outcome, kind string) error {
	began := time.Now()
	err := o.take(func() error {
		if err := s.node.Stop(ctx); err != nil {
			return err
		}
		return s.start(ctx)
	})
	o.call(kind, time.Since(began))
	if err != nil {
		return err
	}
	_, peak, err := memory(s.node.PID())
	o.Values[Peak] = max(o.Values[Peak], peak)
	return err
}

// measureChanges has one node after the other leave, join again, and move. The kinds take
// turns, so that what drifts meets all alike; and the guard, which keeps peers of which
// too many leave, lets each go.
func (s *site) measureChanges(ctx context.Context, o Options) ([]Outcome, error) {
	watch, err := watchRoutes(s.node.Namespace)
	if err != nil {
		return nil, err
	}
	defer watch.close()
	join, leave, address := newOutcome(Join), newOutcome(Leave), newOutcome(Address)
	r, registers := s.directory.(registry)
	for i := range o.Changes {
		number := i * len(s.nodes) / o.Changes
		n := s.nodes[number]
		if registers {
			if err := leave.change(ctx, watch, peerEvents(n, true), func() error { return r.leave(ctx, n) }); err != nil {
				return nil, err
			}
			if err := join.change(ctx, watch, peerEvents(n, false), func() error { return r.join(ctx, n) }); err != nil {
				return nil, err
			}
		}
		moved := s.moved(number)
		if err := address.change(ctx, watch, moveEvents(n, moved), func() error { return s.directory.move(ctx, moved) }); err != nil {
			return nil, err
		}
		s.nodes[number] = moved
	}
	outcomes := []Outcome{address}
	if registers {
		outcomes = []Outcome{join, leave, address}
	}
	for _, outcome := range outcomes {
		outcome.Values[P50], outcome.Values[P99] = outcome.percentile(outcome.Cell, 50), outcome.percentile(outcome.Cell, 99)
	}
	return outcomes, nil
}

// change writes a change, and counts from when that is acknowledged until the kernel has
// told the last of the events.
func (o *Outcome) change(ctx context.Context, watch *routeWatch, events []event, write func() error) error {
	ctx, cancel := context.WithTimeout(ctx, changeLimit)
	defer cancel()
	return o.take(func() error {
		watch.expect(events)
		if err := write(); err != nil {
			return err
		}
		acknowledged := time.Now()
		at, err := watch.wait(ctx)
		o.call(o.Cell, max(0, at.Sub(acknowledged)))
		return err
	})
}

// measureMass has all nodes write another endpoint and key, some at the same time, as after
// an outage of the whole site.
func (s *site) measureMass(ctx context.Context, _ Options) ([]Outcome, error) {
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
	before, err := cpuTime(s.node.PID())
	if err != nil {
		return nil, err
	}
	outcome := newOutcome(Mass)
	err = outcome.take(func() error {
		watch.expect(events)
		if err := each(ctx, s.nodes, s.directory.move); err != nil {
			return err
		}
		written := time.Now()
		at, err := watch.wait(ctx)
		outcome.Values["written"] = written.Sub(outcome.Started).Seconds()
		outcome.Values["after"] = max(0, at.Sub(written)).Seconds()
		return err
	})
	if err != nil {
		return nil, err
	}
	after, err := cpuTime(s.node.PID())
	if err != nil {
		return nil, err
	}
	outcome.Values[CPU] = (after - before).Seconds()
	_, outcome.Values[Peak], err = memory(s.node.PID())
	return []Outcome{outcome}, err
}

// measureIdle leaves weftd alone.
func (s *site) measureIdle(ctx context.Context, o Options) ([]Outcome, error) {
	outcome := newOutcome(Idle)
	prefixes, err := s.metric(ctx, "weft_fib_prefixes")
	if err != nil {
		return nil, err
	}
	outcome.Values[Prefixes] = prefixes
	before, err := cpuTime(s.node.PID())
	if err != nil {
		return nil, err
	}
	err = outcome.take(func() error {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(o.Idle):
			return nil
		}
	})
	if err != nil {
		return nil, err
	}
	after, err := cpuTime(s.node.PID())
	if err != nil {
		return nil, err
	}
	outcome.Values[CPU] = 100 * (after - before).Seconds() / time.Since(outcome.Started).Seconds()
	outcome.Values[Resident], outcome.Values[Peak], err = memory(s.node.PID())
	return []Outcome{outcome}, err
}
