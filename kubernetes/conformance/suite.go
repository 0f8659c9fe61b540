package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/onsi/ginkgo/v2/types"

	"weft/kubernetes"
)

// programs are where what make builds is.
type programs struct {
	bin        string // the folder of all
	weft       kubernetes.Files
	kubernetes string // what `make kubernetes-build` builds
	suite      string // what `make conformance-build` builds
}

func (p programs) e2e() string { return filepath.Join(p.suite, "e2e.test") }

// runAll runs the tests of Kubernetes' conformance first, and then the others.
func (c *cluster) runAll(ctx context.Context, o options, log io.Writer) (r result, err error) {
	for _, part := range []struct {
		name, labels string
		conformance  bool
	}{
		{"conformance", "sig-network && Conformance", true},
		{"others", "sig-network && !Conformance", false},
	} {
		if o.conformanceOnly && !part.conformance {
			continue
		}
		tests, err := c.run(ctx, part.name, part.labels, o, log)
		if err != nil {
			return r, err
		}
		r.add(tests, part.conformance)
	}
	return r, nil
}

// run has the suite test the cluster, and returns what became of each test of [sig-network],
// those that were not selected included. The labels select tests, and what leftOut names is not run.
func (c *cluster) run(ctx context.Context, name, labels string, o options, log io.Writer) ([]test, error) {
	kubeconfig, err := c.Server.AdminKubeconfig()
	if err != nil {
		return nil, err
	}
	report := name + ".json"
	args := []string{
		fmt.Sprintf("--procs=%d", o.procs),
		"--no-color", "--timeout=4h", "--poll-progress-after=0",
		"--label-filter=" + labels,
		"--json-report=" + report, "--output-dir=" + o.logs,
	}
	if o.focus != "" {
		args = append(args, "--focus="+o.focus)
	}
	for _, l := range leftOut {
		args = append(args, "--skip="+regexp.QuoteMeta(l.tests))
	}
	args = append(args, c.programs.e2e(), "--",
		"--kubeconfig="+kubeconfig,
		"--kubectl-path="+filepath.Join(c.programs.kubernetes, "kubectl"),
		"--provider=skeleton",
		fmt.Sprintf("--num-nodes=%d", nodes),
		"--disable-log-dump",
		"--e2e-output-dir="+o.logs,
	)
	suite := c.Server.Command(ctx, filepath.Join(c.programs.suite, "ginkgo"), args...)
	suite.Env = append(suite.Environ(),
		"KUBECACHEDIR="+filepath.Join(o.logs, "kubectl"),
		// ginkgo has the command go look for ginkgo's version, in a namespace without the Internet.
		"GOPROXY=off")
	suite.Stdout, suite.Stderr = log, log
	failed := suite.Run()
	var exit *exec.ExitError
	if failed != nil && !errors.As(failed, &exit) {
		return nil, failed
	}
	tests, err := readReport(filepath.Join(o.logs, report))
	if err != nil {
		return nil, errors.Join(err, failed)
	}
	return tests, ctx.Err()
}

// test is what became of a test.
type test struct {
	Group       string // what [sig-network] calls what it tests
	Name        string
	conformance bool
	state       types.SpecState
	Message     string // of a failure, or of a test that skipped itself
}

// FullName is the test's in the suite, without [sig-network].
func (t test) FullName() string { return t.Group + " " + t.Name }

// readReport returns the tests of [sig-network].
func readReport(file string) ([]test, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the suite's report: %w", err)
	}
	var reports []types.Report
	if err := json.Unmarshal(content, &reports); err != nil {
		return nil, fmt.Errorf("read the suite's report: %w", err)
	}
	var tests []test
	for _, r := range reports {
		for _, s := range r.SpecReports {
			if s.LeafNodeType != types.NodeTypeIt || !strings.HasPrefix(s.FullText(), sigNetwork) {
				continue
			}
			containers := s.ContainerHierarchyTexts
			tests = append(tests, test{
				Group:       strings.TrimSpace(strings.TrimPrefix(containers[0], sigNetwork)),
				Name:        strings.TrimSpace(strings.Join(append(containers[1:], s.LeafNodeText), " ")),
				conformance: strings.Contains(s.FullText(), "[Conformance]"),
				state:       s.State,
				Message:     s.FailureMessage(),
			})
		}
	}
	return tests, nil
}
