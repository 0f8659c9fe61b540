package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"weft/benchmarks/machine"
	"weft/benchmarks/measure"
	"weft/benchmarks/pods"
	"weft/benchmarks/result"
	"weft/benchmarks/system"
)

// podsSuite measures how fast pods are attached.
type podsSuite struct {
	pods     int
	repeat   int
	statuses int
	programs pods.Programs
}

func (p *podsSuite) flags(to *flag.FlagSet) {
	to.IntVar(&p.pods, "pods", 110, "`number` of pods on a node")
	to.IntVar(&p.repeat, "repeat", 5, "`number` of times that everything is measured")
	to.IntVar(&p.statuses, "status", 1000, "`number` of calls of STATUS")
	to.StringVar(&p.programs.Others, "plugins", "/usr/lib/cni", "`folder` of bridge, ptp and host-local")
	to.Lookup("out").Usage += ", in a folder on a disk, where plugins keep their state too"
}

func (p *podsSuite) check(bin string) error {
	p.programs.Weft = bin
	switch {
	case p.pods < 1 || p.pods > pods.MaxPods:
		return fmt.Errorf("-pods is 1 to %d", pods.MaxPods)
	case p.repeat < 1 || p.statuses < 1:
		return errors.New("-repeat and -status are at least 1")
	}
	if err := makeAbsolute(&p.programs.Others); err != nil {
		return err
	}
	return require("`make bench-pods` builds or installs it, -bin and -plugins say where it is",
		append(p.plugins(), filepath.Join(p.programs.Others, "host-local"))...)
}

// plugins are the paths of the plugins that systems begin with.
func (p *podsSuite) plugins() (paths []string) {
	for _, name := range pods.Systems() {
		paths = append(paths, p.programs.Plugin(name))
	}
	return paths
}

func (p *podsSuite) cells() []measure.Cell { return pods.Cells() }

func (p *podsSuite) describe(ctx context.Context, r *result.Run) (samples int, err error) {
	for _, plugin := range p.plugins() {
		if r.Environment.Versions[filepath.Base(plugin)], err = machine.FirstLine(ctx, plugin); err != nil {
			return 0, err
		}
	}
	r.InnerMTU, r.Repeat, r.Pods, r.Baseline = system.InnerMTU, p.repeat, p.pods, pods.Baseline
	r.Profiles = []result.Profile{{Name: pods.Profile}}
	for _, name := range pods.Systems() {
		r.Systems = append(r.Systems, result.System{Name: name})
	}
	r.Cells = measure.Names(pods.Cells())
	return p.repeat * (2*len(r.Systems) + 1), nil
}

func (p *podsSuite) measure(ctx context.Context, b *bencher) (err error) {
	state := filepath.Dir(b.out)
	if err := os.MkdirAll(state, 0o755); err != nil {
		return fmt.Errorf("make a folder for results: %w", err)
	}
	site, err := pods.Start(ctx, p.programs, state)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, site.Close()) }()
	for repeat := range p.repeat {
		add := func(samples []result.Sample, err error) error {
			for _, s := range samples {
				s.Repeat = repeat
				err = errors.Join(err, b.add(ctx, s))
			}
			return err
		}
		nodes := rotate(site.Nodes, repeat)
		if err := add(pods.MeasureOneByOne(ctx, nodes, p.pods)); err != nil {
			return err
		}
		for _, n := range nodes {
			if err := add(pods.MeasureAtOnce(ctx, n, p.pods, p.statuses)); err != nil {
				return err
			}
		}
	}
	return nil
}
