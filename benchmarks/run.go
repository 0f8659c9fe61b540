package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"weft/benchmarks/machine"
	"weft/benchmarks/measure"
	"weft/benchmarks/report"
	"weft/benchmarks/result"
	"weft/benchmarks/system"
	"weft/internal/testnet"
)

// runCommand measures, saves and shows.
func runCommand(ctx context.Context, o *options, args []string) error {
	if err := o.parse(args); err != nil {
		return err
	}
	b := &bencher{options: o, systems: o.chosenSystems(), cells: o.chosenCells()}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	return conclude(b.run, b.runAll(ctx), o.out, o.ratios, o.plots)
}

// conclude saves and shows a run that ended with err. What was measured before a failure,
// or before Ctrl-C, is worth keeping.
func conclude(run *result.Run, err error, out string, ratios bool, plots string) error {
	run.Took = time.Since(run.Started)
	if len(run.Samples) == 0 {
		return err
	}
	err = errors.Join(err, run.Save(out), show(run, ratios, plots))
	fmt.Println("\nresults:", out)
	return err
}

// bencher is a run in progress.
type bencher struct {
	options *options
	systems []system.System
	cells   []measure.Cell
	run     *result.Run
	done    int // measurements
}

// runAll measures profile by profile.
func (b *bencher) runAll(ctx context.Context) error {
	for _, profile := range b.options.profiles {
		if err := b.runProfile(ctx, testnet.Offloads(profile)); err != nil {
			return err
		}
	}
	return complete(b.run)
}

// complete returns an error if a measurement failed.
func complete(r *result.Run) error {
	for _, s := range r.Samples {
		if s.Error != "" {
			return errors.New("not everything was measured")
		}
	}
	return nil
}

func (b *bencher) runProfile(ctx context.Context, profile testnet.Offloads) (err error) {
	paths := make([]*system.Path, len(b.systems))
	defer func() {
		for _, p := range paths {
			if p != nil {
				err = errors.Join(err, p.Stop())
			}
		}
	}()
	for i, s := range b.systems {
		if paths[i], err = s.Start(ctx, b.options.programs(), profile); err != nil {
			return err
		}
	}
	idle, err := machine.Watch(watch)
	if err != nil {
		return err
	}
	b.run.Profiles = append(b.run.Profiles, result.Profile{
		Name: string(profile), Features: paths[0].Features[0], IdleShare: idle.Share(),
	})
	if err := b.takeTurns(ctx, profile, paths); err != nil {
		return err
	}
	for i, p := range paths { // again: a path may have fallen back meanwhile
		if err := p.Verify(ctx); err != nil {
			return fmt.Errorf("after the measurements, %s is no longer what it claims: %w", b.systems[i].Name, err)
		}
	}
	return nil
}

// takeTurns is the order of measurements: systems are next to each other in time, and
// none is always first.
func (b *bencher) takeTurns(ctx context.Context, profile testnet.Offloads, paths []*system.Path) error {
	order := make([]int, len(b.systems))
	for i := range order {
		order[i] = i
	}
	for repeat := range b.options.repeat {
		for _, c := range b.cells {
			for _, i := range order {
				s := result.Sample{Profile: string(profile), System: b.systems[i].Name, Cell: c.Name, Repeat: repeat}
				b.sample(ctx, c, paths[i], &s)
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				b.run.Samples = append(b.run.Samples, s)
				b.progress(c, s)
			}
		}
		order = slices.Concat(order[1:], order[:1])
	}
	return nil
}

// sample takes one measurement. Its failure is not the end of the run.
func (b *bencher) sample(ctx context.Context, c measure.Cell, path *system.Path, s *result.Sample) {
	s.Started = time.Now()
	values, err := b.measure(ctx, c, path, s)
	if crash := path.Crashed(); crash != nil {
		err = errors.Join(err, crash)
	}
	if err != nil {
		s.Error = err.Error()
		return
	}
	s.Values = values
}

func (b *bencher) measure(ctx context.Context, c measure.Cell, path *system.Path, s *result.Sample) (measure.Values, error) {
	before, err := path.Counters(ctx)
	if err != nil {
		return nil, err
	}
	cpu, err := machine.StartCPU()
	if err != nil {
		return nil, err
	}
	values, err := c.Measure(ctx, path, b.options.podload(), b.options.time)
	if err != nil {
		return nil, err
	}
	if s.CPU, err = cpu.Stop(); err != nil {
		return nil, err
	}
	after, err := path.Counters(ctx)
	if err != nil {
		return nil, err
	}
	s.Counters = after.Since(before)
	if s.Counters[system.DevicePackets[0]] == 0 {
		return nil, errors.New("the load did not pass the system that it should")
	}
	return values, nil
}

// progress prints one line per measurement.
func (b *bencher) progress(c measure.Cell, s result.Sample) {
	b.done++
	outcome := "FAILED: " + s.Error
	if s.Error == "" {
		headline := c.Metrics[0]
		outcome = fmt.Sprintf("%*.*f %s", 8, headline.Digits, s.Values[headline.Key], headline.Unit)
	}
	elapsed := time.Since(b.run.Started)
	left := time.Duration(float64(elapsed) / float64(b.done) * float64(b.total()-b.done))
	logf("%4d/%d, %v left  %-5s  repeat %d  %-14s  %-24s  %s",
		b.done, b.total(), left.Round(time.Second), s.Profile, s.Repeat+1, s.Cell, s.System, outcome)
}

// logf writes to standard error: standard output is for results.
func logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// show prints a run.
func show(r *result.Run, ratios bool, plots string) error {
	drawPlots := report.Plots
	switch {
	case r.Pods > 0:
		report.Pods(os.Stdout, r)
	case len(r.Nodes) > 0:
		report.Scale(os.Stdout, r)
		drawPlots = report.ScalePlots
	case ratios:
		report.Environment(os.Stdout, r)
		report.Ratios(os.Stdout, r)
	default:
		report.Environment(os.Stdout, r)
		report.Tables(os.Stdout, r)
	}
	if plots == "" {
		return nil
	}
	return drawPlots(plots, r)
}
