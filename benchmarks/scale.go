package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"weft/benchmarks/machine"
	"weft/benchmarks/measure"
	"weft/benchmarks/result"
	"weft/benchmarks/scale"
)

// scaleSuite measures weftd beside many nodes.
type scaleSuite struct {
	scale.Options
	nodes   []int
	sources []string
}

func (s *scaleSuite) flags(to *flag.FlagSet) {
	s.nodes, s.sources = []int{100, 1000, 5000}, scale.Sources()
	to.Func("nodes", "`numbers` of nodes beside weftd's (default 100,1000,5000)", func(text string) (err error) {
		s.nodes, err = parseNodes(text)
		return err
	})
	choice(to, &s.sources, "sources", "control `sources`", scale.Sources())
	to.IntVar(&s.CIDRs, "cidrs", 30, "`number` of CIDRs of each node that is listed in a file; half of them are IPv6")
	to.IntVar(&s.Changes, "changes", 50, "`number` of single changes of each kind")
	to.IntVar(&s.Starts, "starts", 3, "`number` of starts of each kind")
	to.DurationVar(&s.Idle, "idle", 30*time.Second, "`duration` for which weftd is left alone")
	to.StringVar(&s.Programs.Kubernetes, "kubernetes", "", "`folder` of kube-apiserver (default: BIN/kubernetes)")
	to.StringVar(&s.Programs.Manifests, "manifests", "deploy/kubernetes/rights", "`folder` of what weft's users apply to Kubernetes")
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

func (s *scaleSuite) check(bin string) error {
	switch {
	case s.CIDRs < 2 || s.CIDRs > scale.MostCIDRs || s.CIDRs%2 != 0:
		return fmt.Errorf("-cidrs is an even number from 2 to %d", scale.MostCIDRs)
	case slices.Contains(s.sources, scale.File) && slices.Max(s.nodes)*s.CIDRs > scale.MostPrefixes:
		return fmt.Errorf("%d nodes of %d -cidrs each are more than %d", slices.Max(s.nodes), s.CIDRs, scale.MostPrefixes)
	case s.Changes < 1 || s.Starts < 1:
		return errors.New("-changes and -starts are at least 1")
	case s.Idle < 100*time.Millisecond:
		return errors.New("-idle is at least 100ms")
	}
	p := &s.Programs
	p.Weft = bin
	if p.Kubernetes == "" {
		p.Kubernetes = filepath.Join(bin, "kubernetes")
	}
	if err := makeAbsolute(&p.Kubernetes, &p.Manifests); err != nil {
		return err
	}
	err := require("`make build` builds it, and -bin says where it is", filepath.Join(bin, "weftd"))
	if slices.Contains(s.sources, scale.Kubernetes) {
		err = errors.Join(err,
			require("`make kubernetes-build` builds it, and -kubernetes says where it is", filepath.Join(p.Kubernetes, "kube-apiserver")),
			require("-manifests says where it is", filepath.Join(p.Manifests, "rbac.yaml")))
	}
	return err
}

func (s *scaleSuite) cells() []measure.Cell { return scale.Cells() }

// describe returns no number of samples: beside more nodes each takes longer.
func (s *scaleSuite) describe(ctx context.Context, r *result.Run) (samples int, err error) {
	programs := map[string]string{"weft": filepath.Join(s.Programs.Weft, "weftd")}
	for _, source := range s.sources {
		switch source {
		case scale.Etcd:
			programs[source] = "etcd"
		case scale.Kubernetes:
			programs[source] = filepath.Join(s.Programs.Kubernetes, "kube-apiserver")
		}
		r.Systems = append(r.Systems, result.System{Name: source, Encrypted: true})
	}
	for name, program := range programs {
		if r.Environment.Versions[name], err = machine.FirstLine(ctx, program, "--version"); err != nil {
			return 0, err
		}
	}
	r.Repeat, r.Nodes, r.CIDRs, r.Changes, r.Time = 1, s.nodes, s.CIDRs, s.Changes, s.Idle
	for _, n := range s.nodes {
		r.Profiles = append(r.Profiles, result.Profile{Name: scale.Profile(n)})
	}
	r.Cells = measure.Names(scale.Cells())
	return 0, nil
}

// measure measures the sources beside one number of nodes after the other.
func (s *scaleSuite) measure(ctx context.Context, b *bencher) error {
	for _, nodes := range s.nodes {
		for _, source := range s.sources {
			o := s.Options
			o.Source, o.Nodes = source, nodes
			scale.Measure(ctx, o, func(sample result.Sample) { _ = b.add(ctx, sample) }) // the end of ctx is seen below
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}
	return nil
}
