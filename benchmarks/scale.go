package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"weft/benchmarks/machine"
	"weft/benchmarks/result"
	"weft/benchmarks/scale"
)

// scaleOptions are what the flags of scale say.
type scaleOptions struct {
	nodes    []int
	sources  []string
	cidrs    int
	changes  int
	starts   int
	idle     time.Duration
	programs scale.Programs
	out      string
	plots    string
}

func (o *scaleOptions) parse(args []string) error {
	o.nodes, o.sources = []int{100, 1000, 5000}, scale.Sources()
	flags := flag.NewFlagSet("bench scale", flag.ExitOnError)
	flags.Func("nodes", "`numbers` of nodes beside weftd's (default 100,1000,5000)", func(text string) (err error) {
		o.nodes, err = parseNodes(text)
		return err
	})
	choice(flags, &o.sources, "sources", "control `sources`", scale.Sources())
	flags.IntVar(&o.cidrs, "cidrs", 30, "`number` of CIDRs of each node that is listed in a file; half of them are IPv6")
	flags.IntVar(&o.changes, "changes", 50, "`number` of single changes of each kind")
	flags.IntVar(&o.starts, "starts", 3, "`number` of starts of each kind")
	flags.DurationVar(&o.idle, "idle", 30*time.Second, "`duration` for which weftd is left alone")
	flags.StringVar(&o.programs.Weft, "bin", "bin", "`folder` of weftd")
	flags.StringVar(&o.programs.Kubernetes, "kubernetes", "", "`folder` of kube-apiserver (default: BIN/kubernetes)")
	flags.StringVar(&o.programs.Manifests, "manifests", "deploy/kubernetes", "`folder` of what weft's users apply to Kubernetes")
	flags.StringVar(&o.out, "out", "", "`file` of results (default: BIN/bench/scale-DATE.json)")
	flags.StringVar(&o.plots, "plots", "", "`folder` to draw plots into (default: none)")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "Usage: bench scale [flags]\nLists are separated by commas.")
		flags.PrintDefaults()
	}
	_ = flags.Parse(args) // ends the program on an error
	if flags.NArg() > 0 {
		return usage{fmt.Errorf("unexpected argument %q", flags.Arg(0))}
	}
	if err := o.check(); err != nil {
		return usage{err}
	}
	if o.out == "" {
		o.out = filepath.Join(o.programs.Weft, "bench", time.Now().Format("scale-2006-01-02-150405")+".json")
	}
	return o.locate()
}

// parseNodes returns the numbers of a list, sorted.
func parseNodes(text string) (numbers []int, err error) {
	for field := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 || n > scale.MostNodes {
			return nil, fmt.Errorf("%q is no number from 1 to %d", field, scale.MostNodes)
		}
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	return slices.Compact(numbers), nil
}

func (o *scaleOptions) check() error {
	switch {
	case o.cidrs < 2 || o.cidrs > scale.MostCIDRs || o.cidrs%2 != 0:
		return fmt.Errorf("-cidrs is an even number from 2 to %d", scale.MostCIDRs)
	case slices.Contains(o.sources, scale.File) && slices.Max(o.nodes)*o.cidrs > scale.MostPrefixes:
		return fmt.Errorf("%d nodes of %d -cidrs each are more than %d", slices.Max(o.nodes), o.cidrs, scale.MostPrefixes)
	case o.changes < 1 || o.starts < 1:
		return errors.New("-changes and -starts are at least 1")
	case o.idle < 100*time.Millisecond:
		return errors.New("-idle is at least 100ms")
	}
	return nil
}

// locate makes paths absolute, and looks whether all is there.
func (o *scaleOptions) locate() error {
	p := &o.programs
	if p.Kubernetes == "" {
		p.Kubernetes = filepath.Join(p.Weft, "kubernetes")
	}
	if err := makeAbsolute(&o.out, &p.Weft, &p.Kubernetes, &p.Manifests); err != nil {
		return err
	}
	needed := map[string]string{filepath.Join(p.Weft, "weftd"): "`make build` builds it, and -bin says where it is"}
	if slices.Contains(o.sources, scale.Kubernetes) {
		needed[filepath.Join(p.Kubernetes, "kube-apiserver")] = "`make kubernetes-build` builds it, and -kubernetes says where it is"
		needed[filepath.Join(p.Manifests, "rbac.yaml")] = "-manifests says where it is"
	}
	for path, remedy := range needed {
		if _, err := os.Stat(path); err != nil {
			return usage{fmt.Errorf("%w; %s", err, remedy)}
		}
	}
	return nil
}

// scaleCommand measures, saves and shows.
func scaleCommand(ctx context.Context, args []string) error {
	var o scaleOptions
	if err := o.parse(args); err != nil {
		return err
	}
	b := &scaleBencher{options: o}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	return conclude(b.run, b.runAll(ctx), o.out, false, o.plots)
}

// scaleBencher is a run in progress.
type scaleBencher struct {
	options scaleOptions
	run     *result.Run
}

func (b *scaleBencher) prepare(ctx context.Context) error {
	environment, err := lookAround()
	if err != nil {
		return err
	}
	environment.Versions = map[string]string{}
	weftd, apiserver := filepath.Join(b.options.programs.Weft, "weftd"), filepath.Join(b.options.programs.Kubernetes, "kube-apiserver")
	for name, program := range map[string]string{scale.Etcd: "etcd", "weft": weftd, scale.Kubernetes: apiserver} {
		if name != "weft" && !slices.Contains(b.options.sources, name) {
			continue
		}
		if environment.Versions[name], err = machine.FirstLine(ctx, program, "--version"); err != nil {
			return err
		}
	}
	b.run = &result.Run{
		Started: time.Now(), Environment: environment, Repeat: 1, Nodes: b.options.nodes,
		CIDRs: b.options.cidrs, Changes: b.options.changes, Time: b.options.idle,
	}
	for _, n := range b.options.nodes {
		b.run.Profiles = append(b.run.Profiles, result.Profile{Name: scale.Profile(n)})
	}
	for _, name := range b.options.sources {
		b.run.Systems = append(b.run.Systems, result.System{Name: name, Encrypted: true})
	}
	for _, c := range scale.Cells() {
		b.run.Cells = append(b.run.Cells, c.Name)
	}
	for _, why := range environment.Disturbances() {
		logf("WARNING: %s; figures taken now are noise", why)
	}
	return nil
}

// runAll measures the sources beside one number of nodes after the other. What fails is
// not the end of the run.
func (b *scaleBencher) runAll(ctx context.Context) error {
	for _, nodes := range b.options.nodes {
		for _, source := range b.options.sources {
			scale.Measure(ctx, scale.Options{
				Source: source, Nodes: nodes, CIDRs: b.options.cidrs,
				Changes: b.options.changes, Starts: b.options.starts, Idle: b.options.idle,
				Programs: b.options.programs,
			}, func(o scale.Outcome) {
				if ctx.Err() == nil { // otherwise it has failed for no other reason
					b.add(nodes, source, o)
				}
			})
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}
	return complete(b.run)
}

// add keeps an outcome, and prints one line about it.
func (b *scaleBencher) add(nodes int, source string, o scale.Outcome) {
	s := result.Sample{
		Profile: scale.Profile(nodes), System: source, Cell: o.Cell, Started: o.Started,
		Values: o.Values, Calls: o.Calls, CPU: o.CPU,
	}
	var told []string
	if o.Err != nil {
		s.Error = o.Err.Error()
		told = []string{"FAILED: " + s.Error}
	}
	for _, c := range scale.Cells() {
		for _, m := range c.Metrics {
			if value, ok := o.Values[m.Key]; ok && c.Name == o.Cell {
				told = append(told, fmt.Sprintf("%s %.*f %s", m.Title, m.Digits, value, m.Unit))
			}
		}
	}
	b.run.Samples = append(b.run.Samples, s)
	elapsed := time.Since(b.run.Started).Round(time.Second)
	logf("%5v  %5d nodes  %-10s  %-7s  %s", elapsed, nodes, source, o.Cell, strings.Join(told, ", "))
}
