// Package stage is what weft's demos have in common: what they can be asked for, how they
// run their steps and print what these show, and how they end. Whatever happens, a demo
// leaves nothing behind, unless it was asked to; and it never claims that nothing is left
// without having looked.
package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"weft/internal/testnet"
)

// prefix begins the names of the demos' namespaces. It is the same for all: so each
// removes what any other has left.
const prefix = "weft-demo"

// Demo is one that runs. Steps print on its Screen, and make what they need in Net.
type Demo struct {
	*Screen
	Options
	Net *testnet.Net

	// Steps are shown one after the other, each below its title.
	Steps []Step

	// Stop ends what the demo's own process runs, before the Net is closed; nil if there
	// is nothing.
	Stop func()

	// Hints are commands for those who look around in what was left running, each with
	// what it does.
	Hints func() [][2]string

	started time.Time
}

// Step is one thing that a demo shows.
type Step struct {
	Title string
	Show  func(context.Context) error
}

// Run runs a demo to its end and returns the exit status. prepare says what it shows. The
// limit ends a demo that hangs.
func Run(o Options, limit time.Duration, prepare func(*Demo)) int {
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(interrupted, limit, fmt.Errorf("it took longer than %v", limit))
	defer cancel()

	s := newScreen(os.Stdout)
	if o.Clean {
		return s.report(interrupted, s.clean(ctx))
	}
	d, err := newDemo(ctx, s, o)
	if err != nil {
		return s.report(interrupted, err)
	}
	// Deferred for the sake of a panic. Otherwise finish has removed everything.
	defer d.Net.Close()
	prepare(d)
	status := s.report(interrupted, d.showAll(ctx))
	return max(status, s.report(interrupted, d.finish(ctx)))
}

func newDemo(ctx context.Context, s *Screen, o Options) (*Demo, error) {
	for _, program := range []string{"weftd", "weft-cni"} {
		if _, err := os.Stat(filepath.Join(o.Bin, program)); err != nil {
			return nil, fmt.Errorf("%w; build it with `make build`, or say with --bin where it is", err)
		}
	}
	// What is kept must outlive this process.
	net, err := testnet.New(ctx, testnet.Options{Prefix: prefix, BinDir: o.Bin, Detached: o.Keep})
	if err != nil {
		return nil, err
	}
	return &Demo{Screen: s, Options: o, Net: net, started: time.Now()}, nil
}

func (d *Demo) showAll(ctx context.Context) error {
	for i, step := range d.Steps {
		d.heading(i+1, step.Title)
		if err := step.Show(ctx); err != nil {
			return d.explain(ctx, fmt.Errorf("step %d: %w", i+1, err))
		}
	}
	return nil
}

// explain adds to err what may be behind it: the end of the context, which killed
// what was running, or a weftd that has ended by itself.
func (d *Demo) explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%w: %w", cause, err)
	}
	for _, node := range d.Net.Nodes() {
		if crash := node.Crashed(); crash != nil {
			err = d.Concerning(errors.Join(err, crash), node)
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

// Concerning adds nodes, each once, or all if none is named, to those that err concerns
// already. The ends of their logs are printed with it. No error concerns no node.
func (d *Demo) Concerning(err error, nodes ...*testnet.Node) error {
	if err == nil {
		return nil
	}
	if len(nodes) == 0 {
		nodes = d.Net.Nodes()
	}
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

// report tells why the demo failed, if it did, and returns its exit status.
func (s *Screen) report(interrupted context.Context, err error) int {
	switch {
	case err == nil:
		return 0
	case interrupted.Err() != nil && errors.Is(err, context.Canceled):
		s.failed("interrupted")
		return ExitInterrupted
	}
	s.failed("%v", err)
	if f := (*failure)(nil); errors.As(err, &f) {
		for _, node := range f.nodes {
			s.Block(node.LogTail(20))
		}
	}
	return ExitFailure
}
