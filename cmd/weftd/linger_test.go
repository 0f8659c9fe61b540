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
	eventually(t, "weftd to be ready", func() error { return c.ready(t, node) })
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

// ready is what the pod's probe asks, in the container.
func (c *container) ready(t *testing.T, node *testnet.Node) error {
	t.Helper()
	pid, err := c.pid()
	if err != nil {
		return err
	}
	got := finish(t, node.Command(t.Context(), "nsenter", fmt.Sprintf("--target=%d", pid), "--pid", "--mount", "--", binDir+"/weft", "--socket", node.Socket(), "ready", "--pid=1"))
	if got.status != 0 {
		return errors.New(got.stderr)
	}
	return nil
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

// TestPodsOfADaemonSetFollowEachOther: a weftd that is told to linger does not end when the next one has
// taken over, which kubelet would answer by starting it again. It is not ready meanwhile.
func TestPodsOfADaemonSetFollowEachOther(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node := cluster.Nodes()[0]
	if err := node.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	old := startContainer(t, node)
	tr := startTraffic(t, pod1, pod2)
	for range 3 {
		next := startContainer(t, node)
		eventually(t, "the old one to let go", func() error {
			if err := old.ready(t, node); err == nil || !strings.Contains(err.Error(), "another weftd has the data path") {
				return fmt.Errorf("the old one: %w", err)
			}
			return nil
		})
		if got := weft(t, node, "status"); strings.Contains(got.stdout, "does not end") {
			t.Errorf("weft status warns of the old one:\n%s", got.stdout)
		}
		old.signal(t, syscall.SIGTERM)
		if got := old.wait(); got.status != 0 || !strings.Contains(got.stderr, "waiting to be ended") {
			t.Errorf("the old one ends with status %d: %s", got.status, got.stderr)
		}
		if err := next.ready(t, node); err != nil {
			t.Errorf("after the end of the old one: %v", err)
		}
		old = next
	}
	tr.expectNoLoss(t)

	// One that lingers ends when the one that has the data path dies, so that kubelet starts it.
	next := startContainer(t, node)
	next.signal(t, syscall.SIGKILL)
	next.wait()
	if got := old.wait(); got.status != 0 || !strings.Contains(got.stderr, "runs no more") {
		t.Errorf("the one that lingers ends with status %d: %s", got.status, got.stderr)
	}
	last := startContainer(t, node)
	expectPings(t, pod1, pod2)
	last.signal(t, syscall.SIGTERM)
	if got := last.wait(); got.status != 0 {
		t.Errorf("exit status %d: %s", got.status, got.stderr)
	}
}
