// Command bench measures weft beside other ways to connect pods, on one machine, all
// in one run:
//
//	bench run     every system, profile and kind of traffic, in three hours
//	bench quick   the ratios of weft to systems that do the same work, and to the
//	              floor, in three minutes
//	bench pods    how fast pods are attached by weft-cni and by others (package pods)
//	bench scale   how weftd does beside thousands of nodes (package scale)
//	bench soak    whether a weftd grows while everything changes, in 20 minutes
//	bench restart what pods notice when weftd is replaced
//	bench show    tables and plots out of a file of results
//
// Two nodes are network namespaces joined by a veth pair, and so is a pod to each:
//
//	pod1 ──veth── node1 ──veth, MTU 1500── node2 ──veth── pod2
//
// Each system has a pair of its own (package system draws it). All are up at once, and
// take turns: for each repeat, for each kind of traffic, each system once, and the
// next repeat begins with another system. What drifts on the machine meets all alike.
// Load and systems share the machine's processors, as pods and routers do on a node;
// and so CPU time is that of the whole machine. With -before FOLDER, run and quick
// measure another version of weft beside this one.
//
// What the wire offloads decides much, so run measures with three profiles; quick, unless it
// is asked for others, with notun:
//
//	full    segmentation and checksums, inside of tunnels too
//	notun   the same, but not inside of tunnels, as most cloud NICs
//	bare    neither segmentation nor checksums; the kernel's GRO is on
//
// Every report says what a system call, a wake-up and a copy take on the machine, since
// figures of two machines differ with these.
//
// It needs root, iproute2, nftables, ethtool, iperf3 and sockperf, and leaves nothing behind but
// the file of results. Its exit status is 0 if everything was measured, 1 if something
// was not, 2 if it was called wrongly, 130 if it was interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const (
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// usage is an error in how the program was called.
type usage struct{ error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err := bench(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
	os.Exit(exitStatus(ctx, err))
}

func bench(ctx context.Context, args []string) error {
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch command {
	case "run":
		return (&bencher{name: command, suite: everything()}).command(ctx, args)
	case "quick":
		return (&bencher{name: command, suite: theRatios(), ratios: true}).command(ctx, args)
	case "pods":
		return (&bencher{name: command, suite: new(podsSuite), prefix: "pods-"}).command(ctx, args)
	case "scale":
		return (&bencher{name: command, suite: new(scaleSuite), prefix: "scale-"}).command(ctx, args)
	case "restart":
		return restartCommand(ctx, args)
	case "soak":
		return soakCommand(ctx, args)
	case "show":
		return showCommand(args)
	}
	return usage{errors.New("want run, quick, pods, scale, restart, soak or show; `bench run -help` lists the flags of run, and so on")}
}

func exitStatus(ctx context.Context, err error) int {
	switch {
	case err == nil:
		return 0
	case errors.As(err, new(usage)):
		return exitUsage
	case ctx.Err() != nil:
		return exitInterrupted
	}
	return exitFailure
}
