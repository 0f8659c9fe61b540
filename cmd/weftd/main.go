// Command weftd is the node daemon: it connects this node's pods with those of the
// other nodes. See docs/operations/README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/pflag"

	"weft/control/sources"
	"weft/daemon"
	"weft/internal/config"
	"weft/internal/version"
)

const (
	exitFailure = 1
	exitUsage   = 2 // usage, configuration, or a host that cannot run weftd
)

func main() {
	// Go's own status after a panic is 2 as well, after which systemd does not start weftd
	// again. This has the process end by a signal.
	debug.SetTraceback("crash")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	flags := pflag.NewFlagSet("weftd", pflag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.SortFlags = false
	showVersion := flags.Bool("version", false, "print the version and exit")
	check := flags.Bool("check", false, "check the configuration, the list of nodes and this host, change nothing, and exit")
	var succession daemon.Succession
	flags.BoolVar(&succession.Takeover, "takeover", false, "go on with the data path of the weftd that runs, which then ends")
	flags.BoolVar(&succession.Linger, "linger", false, "once another weftd has taken over, wait to be ended, as in a DaemonSet")
	config.AddFlags(flags)
	flags.Usage = func() {
		fmt.Fprintf(stdout, "weftd connects this node's pods with those of the other nodes.\n\n"+
			"Usage: weftd [flags]\n\n%s\n"+
			"Every flag is also a key of the configuration file and an environment variable:\n"+
			"--tun-driver is tun: {driver: …} and WEFT_TUN_DRIVER. Flags override variables,\n"+
			"and these the file. On SIGHUP, weftd reads the list of nodes again. On\n"+
			"SIGUSR2, it starts the program again, which takes over from it.\n", flags.FlagUsages())
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "weftd: %v; `weftd --help` lists the flags\n", err)
		return exitUsage
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "weftd: unexpected argument %q; `weftd --help` lists the flags\n", flags.Arg(0))
		return exitUsage
	case *showVersion:
		fmt.Fprintln(stdout, "weftd", version.Version)
		return 0
	}
	c, err := config.Load(flags, environ)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return exitUsage
	}
	if err := sources.CheckFiles(config.Path(flags, environ), c); err != nil {
		fmt.Fprintln(stderr, err)
		return exitUsage
	}
	// Each lane holds two threads, which are in system calls for most of the time. With
	// more slots than processors none waits for a slot when it returns from one.
	c.TUN.Lanes = c.Lanes() // by the number of processors, so before it is changed
	runtime.GOMAXPROCS(max(8, 4*c.TUN.Lanes))
	if *check {
		if err := daemon.Check(ctx, c); err != nil {
			fmt.Fprintln(stderr, "weftd:", err)
			return exitUsage
		}
		fmt.Fprintln(stdout, "ok")
		return 0
	}
	log := slog.New(slog.NewTextHandler(stderr, nil)).With("node", c.Node)
	err = daemon.Run(ctx, c, succession, log)
	if errors.Is(err, daemon.ErrTakeBack) {
		err = startAgain(environ)
	}
	if err != nil {
		fmt.Fprintln(stderr, "weftd:", err)
		if errors.As(err, new(daemon.Unfit)) {
			return exitUsage
		}
		return exitFailure
	}
	return 0
}

// startAgain has this process begin anew. It returns only if that fails.
func startAgain(environ []string) error {
	path, err := exec.LookPath(os.Args[0])
	if err == nil {
		err = syscall.Exec(path, os.Args, environ)
	}
	return fmt.Errorf("start weftd again: %w", err)
}
