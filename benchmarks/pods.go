package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"weft/benchmarks/machine"
	"weft/benchmarks/pods"
	"weft/benchmarks/result"
	"weft/benchmarks/system"
)

// podsOptions are what the flags of pods say.
type podsOptions struct {
	pods     int
	repeat   int
	statuses int
	programs pods.Programs
	out      string
	plots    string
}

func (o *podsOptions) parse(args []string) error {
	flags := flag.NewFlagSet("bench pods", flag.ExitOnError)
	flags.IntVar(&o.pods, "pods", 110, "`number` of pods on a node")
	flags.IntVar(&o.repeat, "repeat", 5, "`number` of times that everything is measured")
	flags.IntVar(&o.statuses, "status", 1000, "`number` of calls of STATUS")
	flags.StringVar(&o.programs.Weft, "bin", "bin", "`folder` of weft-cni")
	flags.StringVar(&o.programs.Others, "plugins", "/usr/lib/cni", "`folder` of bridge, ptp and host-local")
	flags.StringVar(&o.out, "out", "", "`file` of results, in a folder on a disk, where plugins keep their state too (default: BIN/bench/pods-DATE.json)")
	flags.StringVar(&o.plots, "plots", "", "`folder` to draw plots into (default: none)")
	_ = flags.Parse(args) // ends the program on an error
	switch {
	case flags.NArg() > 0:
		return usage{fmt.Errorf("unexpected argument %q", flags.Arg(0))}
	case o.pods < 1 || o.pods > pods.MaxPods:
		return usage{fmt.Errorf("-pods is 1 to %d", pods.MaxPods)}
	case o.repeat < 1 || o.statuses < 1:
		return usage{errors.New("-repeat and -status are at least 1")}
	}
	if o.out == "" {
		o.out = filepath.Join(o.programs.Weft, "bench", time.Now().Format("pods-2006-01-02-150405")+".json")
	}
	return o.locate()
}

// locate makes paths absolute, as plugins are told them.
func (o *podsOptions) locate() error {
	if err := makeAbsolute(&o.out, &o.programs.Weft, &o.programs.Others); err != nil {
		return err
	}
	for _, plugin := range append(o.plugins(), filepath.Join(o.programs.Others, "host-local")) {
		if _, err := os.Stat(plugin); err != nil {
			return usage{fmt.Errorf("%w; `make bench-pods` builds or installs it, -bin and -plugins say where it is", err)}
		}
	}
	return nil
}

// makeAbsolute has paths mean the same from every working directory.
func makeAbsolute(paths ...*string) error {
	for _, path := range paths {
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return fmt.Errorf("find the programs: %w", err)
		}
	}
	return nil
}

// plugins are the paths of the plugins that systems begin with.
func (o *podsOptions) plugins() (paths []string) {
	for _, name := range pods.Systems() {
		paths = append(paths, o.programs.Plugin(name))
	}
	return paths
}

// podsCommand measures, saves and shows.
func podsCommand(ctx context.Context, args []string) error {
	var o podsOptions
	if err := o.parse(args); err != nil {
		return err
	}
	b := &podsBencher{options: o}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	return conclude(b.run, b.runAll(ctx), o.out, false, o.plots)
}

// podsBencher is a run in progress.
type podsBencher struct {
	options podsOptions
	run     *result.Run
}

func (b *podsBencher) prepare(ctx context.Context) error {
	environment, err := lookAround()
	if err != nil {
		return err
	}
	environment.Versions = map[string]string{}
	for _, plugin := range b.options.plugins() {
		if environment.Versions[filepath.Base(plugin)], err = machine.FirstLine(ctx, plugin); err != nil {
			return err
		}
	}
	b.run = &result.Run{
		Started: time.Now(), Environment: environment, InnerMTU: system.InnerMTU,
		Repeat: b.options.repeat, Pods: b.options.pods, Baseline: pods.Baseline,
		Profiles: []result.Profile{{Name: pods.Profile}},
	}
	for _, name := range pods.Systems() {
		b.run.Systems = append(b.run.Systems, result.System{Name: name})
	}
	for _, c := range pods.Cells() {
		b.run.Cells = append(b.run.Cells, c.Name)
	}
	for _, why := range environment.Disturbances() {
		logf("WARNING: %s; figures taken now are noise", why)
	}
	return nil
}

// runAll has the systems take turns; none is always first.
func (b *podsBencher) runAll(ctx context.Context) (err error) {
	state := filepath.Dir(b.options.out)
	if err := os.MkdirAll(state, 0o755); err != nil {
		return fmt.Errorf("make a folder for results: %w", err)
	}
	site, err := pods.Start(ctx, b.options.programs, state)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, site.Close()) }()
	nodes := site.Nodes
	for repeat := range b.options.repeat {
		if err := b.runOnce(ctx, nodes, repeat); err != nil {
			return err
		}
		nodes = slices.Concat(nodes[1:], nodes[:1])
	}
	return complete(b.run)
}

func (b *podsBencher) runOnce(ctx context.Context, nodes []*pods.Node, repeat int) error {
	outcomes, err := pods.MeasureOneByOne(ctx, nodes, b.options.pods)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for i, n := range nodes {
		b.add(n, pods.OneByOne, repeat, outcomes[i])
	}
	for _, n := range nodes {
		statuses := 0
		if n.System == pods.Weft { // the others do not know it
			statuses = b.options.statuses
		}
		atOnce, status, err := pods.MeasureAtOnce(ctx, n, b.options.pods, statuses)
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b.add(n, pods.AtOnce, repeat, atOnce)
		if statuses > 0 {
			b.add(n, pods.Status, repeat, status)
		}
	}
	return nil
}

// add keeps an outcome, and prints one line about it.
func (b *podsBencher) add(n *pods.Node, cell string, repeat int, o pods.Outcome) {
	s := result.Sample{
		Profile: pods.Profile, System: n.System, Cell: cell, Repeat: repeat,
		Values: o.Values, Calls: o.Calls, CPU: o.CPU,
	}
	outcome := ""
	for _, c := range pods.Cells() {
		if c.Name == cell {
			headline := c.Metrics[0]
			outcome = fmt.Sprintf("%s %.*f %s", headline.Title, headline.Digits, o.Values[headline.Key], headline.Unit)
		}
	}
	if o.Err != nil {
		s.Error = o.Err.Error()
		outcome = "FAILED: " + s.Error
	}
	b.run.Samples = append(b.run.Samples, s)
	logf("repeat %d/%d  %-12s  %-18s  %s", repeat+1, b.options.repeat, cell, n.System, outcome)
}
