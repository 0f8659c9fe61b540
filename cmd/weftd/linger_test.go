package main_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"weft/internal/testnet"
)

// container is a weftd that is process 1 of namespaces of its own, as in a pod.
type container struct {
	cmd  *exec.Cmd
	wait func() outcome
}

func startContainer(t *testing.T, node *testnet.Node) *container {
	t.Helper()
	c := &container{cmd: weftd(t, node, []string{"unshare", "--pid", "--fork", "--kill-child", "--mount-proc"}, "--takeover", "--linger")}
	c.wait = begin(t, c.cmd)
	c.awaitProbe(t, node, "ready\n")
	return c
}

// pid is the number that others know its weftd by.
func (c *container) pid() (int, error) {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", c.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(children)))
}

// probe is what the pod's readiness probe says, in the container.
func (c *container) probe(t *testing.T, node *testnet.Node) (string, error) {
	t.Helper()
	pid, err := c.pid()
	if err != nil {
		return "", err
	}
	got := finish(t, node.Command(t.Context(), "nsenter", fmt.Sprintf("--target=%d", pid), "--pid", "--mount", "--", binDir+"/weft", "--socket", node.Socket(), "ready", "--pid=1"))
	if got.status != 0 {
		return "", errors.New(got.stderr)
	}
	return got.stdout, nil
}

func (c *container) awaitProbe(t *testing.T, node *testnet.Node, want string) {
	t.Helper()
	eventually(t, fmt.Sprintf("the probe to say %q", want), func() error {
		got, err := c.probe(t, node)
		if err == nil && got != want {
			err = errors.New(got)
		}
		return err
	})
}

func (c *container) signal(t *testing.T, signal syscall.Signal) {
	t.Helper()
	pid, err := c.pid()
	if err == nil {
		err = syscall.Kill(pid, signal)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestPodsOfADaemonSetFollowEachOther: with --linger, weftd keeps running after a hand-over, so that kubelet
// does not restart it. It stays ready, or the DaemonSet's controller would delete its pod whether or not the
// next one is ready.
func TestPodsOfADaemonSetFollowEachOther(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node := cluster.Nodes()[0]
	if err := node.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	const ready, waits = "ready\n", "waits to be ended, another weftd has the data path\n"
	old := startContainer(t, node)
	tr := startTraffic(t, pod1, pod2)
	for range 3 {
		next := startContainer(t, node)
		old.awaitProbe(t, node, waits)
		if got := weft(t, node, "status"); strings.Contains(got.stdout, "does not end") {
			t.Errorf("weft status warns of the old one:\n%s", got.stdout)
		}
		old.signal(t, syscall.SIGTERM)
		if got := old.wait(); got.status != 0 || !strings.Contains(got.stderr, "waiting to be ended") {
			t.Errorf("the old one ends with status %d: %s", got.status, got.stderr)
		}
		if got, err := next.probe(t, node); got != ready {
			t.Errorf("after the end of the old one: %s %v", got, err)
		}
		old = next
	}
	tr.expectNoLoss(t)

	// One that lingers goes on, in the same process, when the one that has the data path dies.
	next := startContainer(t, node)
	next.signal(t, syscall.SIGKILL)
	next.wait()
	old.awaitProbe(t, node, ready)
	expectPings(t, pod1, pod2)
	last := startContainer(t, node)
	old.awaitProbe(t, node, waits)
	old.signal(t, syscall.SIGTERM)
	if got := old.wait(); got.status != 0 || !strings.Contains(got.stderr, "runs no more") {
		t.Errorf("the one that has lingered twice ends with status %d: %s", got.status, got.stderr)
	}
	last.signal(t, syscall.SIGTERM)
	if got := last.wait(); got.status != 0 {
		t.Errorf("exit status %d: %s", got.status, got.stderr)
	}
}
