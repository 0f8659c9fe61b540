// Command conformance runs Kubernetes' own end-to-end tests of networks, those of [sig-network],
// on a real Kubernetes of three nodes in network namespaces, whose only network is weft. It writes
// docs/CONFORMANCE.md: how many tests passed, and of all others why not.
//
// It needs root, and Kubernetes' programs beside weft's. Its exit status is 1 if a test of
// Kubernetes' conformance failed, or any other whose failure is not known.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"

	"weft/internal/testnet"
	"weft/kubernetes"
)

// sigNetwork begins the names of the tests that are run.
const sigNetwork = "[sig-network]"

type options struct {
	procs           int
	focus           string // a regular expression, or empty
	conformanceOnly bool
	keep            bool
	out             string
	logs            string
}

// partial says that not all tests are to run.
func (o options) partial() bool { return o.focus != "" || o.conformanceOnly }

func main() {
	bin := flag.String("bin", "bin", "`folder` of what make builds")
	var o options
	flag.IntVar(&o.procs, "procs", 4, "`tests` that run at the same time")
	flag.StringVar(&o.focus, "focus", "", "run only tests whose names match the `expression`, and write no page")
	flag.BoolVar(&o.conformanceOnly, "conformance-only", false, "run only tests of Kubernetes' conformance, and write no page")
	flag.BoolVar(&o.keep, "keep", false, "afterwards leave the cluster running until interrupted")
	flag.StringVar(&o.out, "out", "docs/CONFORMANCE.md", "`file` that the page is written to")
	flag.Parse()
	if flag.NArg() > 0 || o.procs < 1 {
		flag.Usage()
		os.Exit(2)
	}
	// The API server's warnings would appear between what is shown.
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := run(ctx, *bin, o); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, bin string, o options) (err error) {
	p, err := findPrograms(bin)
	if err != nil {
		return err
	}
	o.logs = filepath.Join(p.bin, "conformance")
	if err := os.MkdirAll(o.logs, 0o755); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(o.logs, "suite.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	n, err := testnet.New(ctx, testnet.Options{Prefix: "weft-conformance", BinDir: p.bin})
	if err != nil {
		return err
	}
	defer func() {
		if o.keep && ctx.Err() == nil {
			fmt.Printf("the cluster runs until you interrupt; its files are in %s\n", n.Dir())
			<-ctx.Done()
		}
		err = errors.Join(err, n.Close())
	}()

	c, err := startCluster(ctx, n, p)
	if err != nil {
		return fmt.Errorf("start the cluster: %w", err)
	}
	fmt.Printf("the cluster is ready; the tests' output is in %s\n", log.Name())
	started := time.Now()
	r, err := c.runAll(ctx, o, log)
	if err != nil {
		return fmt.Errorf("run the suite: %w", err)
	}
	r.took = time.Since(started)
	r.print(os.Stdout)
	if o.partial() {
		return r.failures()
	}
	versions, err := c.versions(ctx)
	if err != nil {
		return err
	}
	return errors.Join(r.writePage(o.out, versions), r.verdict())
}

// findPrograms returns absolute folders: the suite's programs run in others.
func findPrograms(bin string) (p programs, err error) {
	if p.bin, err = filepath.Abs(bin); err != nil {
		return p, err
	}
	p.kubernetes = filepath.Join(p.bin, "kubernetes")
	p.suite = filepath.Join(p.bin, "suite")
	p.weft = kubernetes.Files{Image: filepath.Join(p.bin, "image", "weft.tar"), Manifests: filepath.Join(p.bin, "manifests"), Programs: p.bin}
	for _, file := range []string{p.e2e(), p.weft.Image, p.weft.Manifests} {
		if _, err := os.Stat(file); err != nil {
			return p, fmt.Errorf("find what make builds: %w; run `make conformance`", err)
		}
	}
	return p, nil
}
