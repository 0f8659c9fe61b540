// Command demo shows weft at work on one machine: nodes and pods are network
// namespaces, everything else is real. weftd routes, weft-cni wires the pods as a
// container runtime would have it do, and what is printed was measured just now.
//
// It needs root, and it touches nothing outside of the namespaces that it makes.
// Its exit status is 0 if everything worked, 1 if something did not, 2 if it was
// called wrongly, 130 if it was interrupted. In any case nothing is left behind,
// unless --keep asks for it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"weft/internal/config"
)

const (
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// limit ends a demo that hangs. It takes less than half of it.
const limit = 3 * time.Minute

// step is one thing that the demo shows.
type step struct {
	title string
	show  func(*demo, context.Context) error
}

var steps = []step{
	{"The topology", (*demo).drawTopology},
	{"Bring it up", (*demo).bringUp},
	{"What can be read on the underlay", (*demo).showUnderlay},
	{"Who reaches whom", (*demo).showReachability},
	{"Which address the other side sees", (*demo).showSourceAddresses},
	{"How fast a TCP stream is between nodes", (*demo).measureThroughput},
	{"A node joins while pods are talking", (*demo).joinNode},
	{"A pod is recreated", (*demo).recreatePod},
	{"What weft tells about itself", (*demo).showMetrics},
}

type options struct {
	bin    string
	driver string
	encap  string

	// control is where the nodes' list comes from: file or etcd.
	control string

	keep  bool
	clean bool
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "`folder` of weftd, weft-cni and weft")
	flag.StringVar(&o.driver, "driver", "", "TUN `driver` (default: weftd's own)")
	flag.StringVar(&o.encap, "encap", string(config.EncapsulationSealed), "`format` of the datagrams between nodes: sealed or vxlan")
	flag.StringVar(&o.control, "control", string(config.SourceFile), "control `source` that has the list of nodes: file or etcd")
	flag.BoolVar(&o.keep, "keep", false, "leave everything running at the end")
	flag.BoolVar(&o.clean, "clean", false, "remove what --keep left, and do nothing else")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "demo: unexpected argument %q\n", flag.Arg(0))
		os.Exit(exitUsage)
	}
	if !o.sealed() && o.encap != string(config.EncapsulationVXLAN) {
		fmt.Fprintf(os.Stderr, "demo: unknown encapsulation %q; there are sealed and vxlan\n", o.encap)
		os.Exit(exitUsage)
	}
	if !o.etcd() && o.control != string(config.SourceFile) {
		fmt.Fprintf(os.Stderr, "demo: unknown control source %q; there are file and etcd\n", o.control)
		os.Exit(exitUsage)
	}
	os.Exit(run(o))
}

func (o options) etcd() bool   { return o.control == string(config.SourceEtcd) }
func (o options) sealed() bool { return o.encap == string(config.EncapsulationSealed) }

func run(o options) int {
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(interrupted, limit, fmt.Errorf("it took longer than %v", limit))
	defer cancel()

	s := newScreen(os.Stdout)
	if o.clean {
		return report(s, interrupted, clean(ctx, s))
	}
	d, err := newDemo(ctx, s, o)
	if err != nil {
		return report(s, interrupted, err)
	}
	// Deferred for the sake of a panic. Otherwise finish has removed everything.
	defer d.net.Close()
	status := report(s, interrupted, d.showAll(ctx))
	return max(status, report(s, interrupted, d.finish(ctx)))
}

// report tells why the demo failed, if it did, and returns its exit status.
func report(s *screen, interrupted context.Context, err error) int {
	switch {
	case err == nil:
		return 0
	case interrupted.Err() != nil && errors.Is(err, context.Canceled):
		s.failed("interrupted")
		return exitInterrupted
	}
	s.failed("%v", err)
	if f := (*failure)(nil); errors.As(err, &f) {
		for _, node := range f.nodes {
			s.block(node.LogTail(20))
		}
	}
	return exitFailure
}
