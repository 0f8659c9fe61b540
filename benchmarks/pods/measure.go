package pods

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"weft/benchmarks/machine"
	"weft/benchmarks/measure"
	"weft/benchmarks/result"
)

// Outcome is what a measurement of one system yields.
type Outcome struct {
	Values measure.Values

	// Calls are how long each call took, in ms, by its command.
	Calls map[string][]float64

	// CPU is what the whole machine spent.
	CPU machine.CPU
	Err error
}

func newOutcome() Outcome {
	return Outcome{Values: measure.Values{}, Calls: map[string][]float64{}}
}

// MeasureOneByOne has the nodes take turns with each pod, first to attach it, then, when
// all are attached, to detach it. The outcomes are in the order of nodes.
func MeasureOneByOne(ctx context.Context, nodes []*Node, count int) (_ []Outcome, err error) {
	batches := make([]*batch, len(nodes))
	defer func() {
		for _, b := range batches {
			if b != nil {
				err = errors.Join(err, b.remove())
			}
		}
	}()
	outcomes := make([]Outcome, len(nodes))
	for i, n := range nodes {
		if batches[i], err = newBatch(n, count); err != nil {
			return nil, err
		}
		outcomes[i] = newOutcome()
	}
	takeTurns := func(command string) {
		for i := range count {
			for _, j := range turn(i, len(batches)) {
				if outcomes[j].Err == nil {
					var took time.Duration
					took, outcomes[j].Err = batches[j].pods[i].call(ctx, command, time.Time{})
					outcomes[j].count(command, took)
				}
			}
		}
	}
	takeTurns(add)
	for i, b := range batches {
		if outcomes[i].Err == nil {
			outcomes[i].Err = b.verify(ctx)
		}
	}
	takeTurns(del)
	for i, b := range batches {
		outcomes[i].finish(b)
	}
	return outcomes, nil
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
// asks for the status, statusCalls times, one after the other.
func MeasureAtOnce(ctx context.Context, n *Node, count, statusCalls int) (atOnce, asked Outcome, err error) {
	b, err := newBatch(n, count)
	if err != nil {
		return Outcome{}, Outcome{}, err
	}
	atOnce, asked = newOutcome(), newOutcome()
	b.allAtOnce(ctx, add, &atOnce)
	atOnce.Values["add_cpu"] = 1000 * atOnce.CPU.Busy / float64(count)
	if atOnce.Err == nil {
		atOnce.Err = b.verify(ctx)
	}
	for range statusCalls {
		if atOnce.Err != nil || asked.Err != nil {
			break
		}
		var took time.Duration
		took, asked.Err = b.pods[0].call(ctx, status, time.Time{})
		asked.count(status, took)
	}
	b.allAtOnce(ctx, del, &atOnce)
	atOnce.finish(b)
	asked.summarize(status)
	return atOnce, asked, b.remove()
}

// allAtOnce calls the plugin for all pods. It does nothing after a failure.
func (b *batch) allAtOnce(ctx context.Context, command string, o *Outcome) {
	if o.Err != nil {
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
	cpu, err := machine.StartCPU()
	began = time.Now()
	close(start)
	done.Wait()
	wall := time.Since(began)
	spent, stopErr := cpu.Stop()
	o.CPU.Busy += spent.Busy
	o.CPU.Steal += spent.Steal
	o.CPU.Idle += spent.Idle
	o.Err = errors.Join(append(errs, err, stopErr)...)
	for _, t := range took {
		o.count(command, t)
	}
	o.Values[prefixes[command]+"wall"] = milliseconds(wall)
}

// prefixes begin the keys of the metrics of a command, where a cell has several.
var prefixes = map[string]string{add: "add_", del: "del_"}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (o *Outcome) count(command string, took time.Duration) {
	o.Calls[command] = append(o.Calls[command], milliseconds(took))
}

// finish summarizes the calls, or cleans up if one of them failed.
func (o *Outcome) finish(b *batch) {
	if o.Err != nil {
		o.Err = errors.Join(o.Err, b.abandon())
		o.Values = nil
		return
	}
	o.summarize(add)
	o.summarize(del)
}

func (o *Outcome) summarize(command string) {
	if o.Err != nil {
		return
	}
	for _, p := range []int{10, 50, 99} {
		o.Values[fmt.Sprintf("%sp%d", prefixes[command], p)] = result.Percentile(o.Calls[command], float64(p))
	}
}
