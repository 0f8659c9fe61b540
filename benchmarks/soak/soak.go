// Package soak runs a small cluster for a while in which everything changes all the time, and looks
// whether a weftd that goes through it needs ever more memory, goroutines or descriptors.
//
//	node1   runs through; pods come and go there; it is the one that is looked at
//	node2   is restarted, and killed
//	node3   leaves the list of nodes and comes back
//	node4   agrees on new keys with all, and exchanges packets with node1
package soak

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/testnet"
)

// Options say how long, and with which programs.
type Options struct {
	Time   time.Duration
	BinDir string

	// Sample is called with each sample at once.
	Sample func(Sample)
}

// interval is the time between two samples.
const interval = 5 * time.Second

// Sample is what node1's weftd uses, and what has been done until then.
type Sample struct {
	At          time.Duration
	Memory      float64 // bytes, resident
	Goroutines  float64
	Descriptors float64

	Pods, Restarts, Lists, Rotations int // how often each was done
}

// site is the cluster.
type site struct {
	cluster *testnet.Cluster
	nodes   []*testnet.Node
	weft    string
	done    struct{ pods, restarts, lists, rotations counter }
}

// Run soaks, and returns the samples. After an error they are those until then.
func Run(ctx context.Context, o Options) (samples []Sample, err error) {
	net, err := testnet.New(ctx, testnet.Options{Prefix: "soak", BinDir: o.BinDir})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, net.Close()) }()
	s := &site{weft: filepath.Join(o.BinDir, "weft")}
	if s.cluster, err = net.NewCluster(ctx, testnet.ClusterOptions{Nodes: 4, Sealed: true, Configure: func(weft map[string]any) {
		weft["ipam"] = map[string]any{"cooldown": "5s"}
	}}); err != nil {
		return nil, err
	}
	s.nodes = s.cluster.Nodes()
	if err := s.cluster.Start(ctx); err != nil {
		return nil, err
	}
	began := time.Now()
	ending, cancel := context.WithDeadline(ctx, began.Add(o.Time))
	defer cancel()
	group, ending := errgroup.WithContext(ending)
	for _, churn := range []func(context.Context) error{s.pods, s.restarts, s.lists, s.rotations} {
		group.Go(func() error { return repeat(ending, churn) })
	}
	group.Go(func() error {
		for ending.Err() == nil {
			sample, err := s.sample(ctx)
			if err != nil {
				return err
			}
			sample.At = time.Since(began)
			samples = append(samples, sample)
			o.Sample(sample)
			pause(ending, interval)
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return samples, fmt.Errorf("%w\n%s", err, s.nodes[0].LogTail(20))
	}
	return samples, s.nodes[0].Crashed()
}

// repeat calls do until ctx is done.
func repeat(ctx context.Context, do func(context.Context) error) error {
	for ctx.Err() == nil {
		if err := do(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// sample asks node1's weftd.
func (s *site) sample(ctx context.Context) (Sample, error) {
	metrics, err := s.nodes[0].Metrics(ctx)
	if err != nil {
		return Sample{}, err
	}
	var errs []error
	value := func(name string) float64 {
		v, err := strconv.ParseFloat(metrics[name], 64)
		if err != nil {
			errs = append(errs, fmt.Errorf("the metric %s: %w", name, err))
		}
		return v
	}
	sample := Sample{
		Memory: value("process_resident_memory_bytes"), Goroutines: value("go_goroutines"), Descriptors: value("process_open_fds"),
		Pods: s.done.pods.get(), Restarts: s.done.restarts.get(), Lists: s.done.lists.get(), Rotations: s.done.rotations.get(),
	}
	return sample, errors.Join(errs...)
}

// Verdict is how a quantity was late in a run, relative to early in it.
type Verdict struct {
	Name        string
	Early, Late float64 // medians of the second and of the last quarter
	Flat        bool
}

// steady is how much larger a quantity may be late than early.
const steady = 1.10

// Judge compares the last quarter with the second: in the first, caches and pools fill.
func Judge(samples []Sample) []Verdict {
	var all []Verdict
	for _, q := range Quantities() {
		n := len(samples)
		early, late := median(samples[n/4:n/2], q.Of), median(samples[n-n/4:], q.Of)
		all = append(all, Verdict{q.Name, early, late, late <= early*steady})
	}
	return all
}

// Quantity is one that must stay flat.
type Quantity struct {
	Name string
	Of   func(Sample) float64
}

// Quantities are all.
func Quantities() []Quantity {
	return []Quantity{
		{"memory, MB", func(s Sample) float64 { return s.Memory / 1e6 }},
		{"goroutines", func(s Sample) float64 { return s.Goroutines }},
		{"descriptors", func(s Sample) float64 { return s.Descriptors }},
	}
}

func median(samples []Sample, of func(Sample) float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	var values []float64
	for _, s := range samples {
		values = append(values, of(s))
	}
	slices.Sort(values)
	return values[len(values)/2]
}
