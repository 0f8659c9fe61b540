package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"weft/internal/testnet"
)

// prefix begins the names of the demo's namespaces.
const prefix = "weft-demo"

const (
	nodeCount   = 3
	podsPerNode = 2
)

// demo is the state that the steps hand on.
type demo struct {
	*screen
	options options
	started time.Time
	net     *testnet.Net
	cluster *testnet.Cluster
	etcd    *testnet.Etcd // nil with a file
	servers *servers

	// pods are in the order in which tables show them.
	pods []*testnet.Pod
}

func newDemo(ctx context.Context, s *screen, o options) (*demo, error) {
	for _, program := range []string{"weftd", "weft-cni"} {
		if _, err := os.Stat(filepath.Join(o.bin, program)); err != nil {
			return nil, fmt.Errorf("%w; build it with `make build`, or say with --bin where it is", err)
		}
	}
	// What is kept must outlive this process.
	net, err := testnet.New(ctx, testnet.Options{Prefix: prefix, BinDir: o.bin, Detached: o.keep})
	if err != nil {
		return nil, err
	}
	return &demo{screen: s, options: o, started: time.Now(), net: net, servers: newServers()}, nil
}

func (d *demo) showAll(ctx context.Context) error {
	for i, step := range steps {
		d.heading(i+1, step.title)
		if err := step.show(d, ctx); err != nil {
			return d.explain(ctx, fmt.Errorf("step %d: %w", i+1, err))
		}
	}
	return nil
}

// explain adds to err what may be behind it: the end of the context, which killed
// what was running, or a weftd that has ended by itself.
func (d *demo) explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%w: %w", cause, err)
	}
	for _, node := range d.net.Nodes() {
		if crash := node.Crashed(); crash != nil {
			err = concerning(errors.Join(err, crash), node)
		}
	}
	return err
}

// failure is an error with the nodes whose logs may explain it.
type failure struct {
	error
	nodes []*testnet.Node
}

func (f *failure) Unwrap() error { return f.error }

// concerning adds nodes, each once, to those that err concerns already.
func concerning(err error, nodes ...*testnet.Node) error {
	f := &failure{error: err}
	if inner := (*failure)(nil); errors.As(err, &inner) {
		f.nodes = slices.Clone(inner.nodes)
	}
	for _, node := range nodes {
		if node != nil && !slices.Contains(f.nodes, node) {
			f.nodes = append(f.nodes, node)
		}
	}
	return f
}

// timed runs f and prints what was done and how long it took.
func (d *demo) timed(what string, f func() error) error {
	started := time.Now()
	if err := f(); err != nil {
		return err
	}
	d.done(time.Since(started), "%s", what)
	return nil
}
