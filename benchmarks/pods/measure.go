package pods

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"weft/benchmarks/result"
)

// MeasureOneByOne has the nodes take turns with each pod, first to attach it, then, when
// all are attached, to detach it. The samples are in the order of nodes.
func MeasureOneByOne(ctx context.Context, nodes []*Node, count int) (samples []result.Sample, err error) {
	batches := make([]*batch, len(nodes))
	defer func() {
		for _, b := range batches {
			if b != nil {
				err = errors.Join(err, b.remove())
			}
		}
	}()
	for i, n := range nodes {
		if batches[i], err = newBatch(n, count); err != nil {
			return nil, err
		}
		samples = append(samples, n.sample(OneByOne))
	}
	takeTurns := func(command string) {
		for i := range count {
			for _, j := range turn(i, len(batches)) {
				batches[j].pods[i].timed(ctx, command, &samples[j])
			}
		}
	}
	takeTurns(add)
	for i, b := range batches {
		if !samples[i].Failed() {
			samples[i].Fail(b.verify(ctx))
		}
	}
	takeTurns(del)
	for i, b := range batches {
		b.finish(&samples[i])
	}
	return samples, nil
}

func (n *Node) sample(cell string) result.Sample { return result.NewSample(Profile, n.System, cell, 0) }

// timed calls the plugin, and notes how long that took. It does nothing after a failure.
func (p *pod) timed(ctx context.Context, command string, s *result.Sample) {
	if s.Failed() {
		return
	}
	took, err := p.call(ctx, command, time.Time{})
	s.Call(command, took)
	s.Fail(err)
}

// turn is the order of n systems in a round. Each is first, and after each other one,
// equally often: what the kernel puts off until after a call meets the next one.
func turn(round, n int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = (round + i) % n
	}
	if round/n%2 == 1 {
		slices.Reverse(order)
	}
	return order
}

// MeasureAtOnce attaches all pods at the same time, and detaches them so. In between it
// asks weft-cni for its status, statusCalls times, one after the other: the others have none.
func MeasureAtOnce(ctx context.Context, n *Node, count, statusCalls int) ([]result.Sample, error) {
	b, err := newBatch(n, count)
	if err != nil {
		return nil, err
	}
	samples := []result.Sample{n.sample(AtOnce)}
	if n.System == Weft {
		samples = append(samples, n.sample(Status))
	}
	atOnce := &samples[0]
	b.allAtOnce(ctx, add, atOnce)
	if !atOnce.Failed() {
		atOnce.Values["add_cpu"] = 1000 * atOnce.CPU.Busy / float64(count)
		atOnce.Fail(b.verify(ctx))
	}
	for i := range samples[1:] {
		asked := &samples[1+i]
		if atOnce.Failed() {
			asked.Fail(errors.New("not all pods were attached"))
		}
		for range statusCalls {
			b.pods[0].timed(ctx, status, asked)
		}
		summarize(status, asked)
	}
	b.allAtOnce(ctx, del, atOnce)
	b.finish(atOnce)
	return samples, b.remove()
}

// allAtOnce calls the plugin for all pods. It does nothing after a failure.
func (b *batch) allAtOnce(ctx context.Context, command string, s *result.Sample) {
	if s.Failed() {
		return
	}
	var done sync.WaitGroup
	var began time.Time
	start := make(chan struct{})
	took, errs := make([]time.Duration, len(b.pods)), make([]error, len(b.pods))
	for i, p := range b.pods {
		done.Go(func() {
			<-start
			took[i], errs[i] = p.call(ctx, command, began)
		})
	}
	err := s.Spend(func() error {
		began = time.Now()
		close(start)
		done.Wait()
		s.Values[prefixes[command]+"wall"] = float64(time.Since(began)) / float64(time.Millisecond)
		return nil
	})
	for _, t := range took {
		s.Call(command, t)
	}
	s.Fail(errors.Join(append(errs, err)...))
}

// prefixes begin the keys of the metrics of a command, where a cell has several.
var prefixes = map[string]string{add: "add_", del: "del_"}

// finish summarizes the calls, or cleans up if one of them failed.
func (b *batch) finish(s *result.Sample) {
	if s.Failed() {
		s.Fail(b.abandon())
		return
	}
	summarize(add, s)
	summarize(del, s)
}

func summarize(command string, s *result.Sample) {
	if s.Failed() {
		return
	}
	for _, p := range []int{10, 50, 99} {
		s.Values[fmt.Sprintf("%sp%d", prefixes[command], p)] = s.Percentile(command, float64(p))
	}
}
