package main_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/testnet"
)

// TestTakeoverWhileItStops: a next weftd that starts while the one before is being stopped goes on with
// the data path, or starts as after a stop.
func TestTakeoverWhileItStops(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node, inherited := cluster.Nodes()[0], 0
	for range testnet.Sampled(8, 40) {
		next := weftd(t, node, nil, "--takeover")
		wait := begin(t, next)
		time.Sleep(rand.N(120 * time.Millisecond))
		if err := node.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		expectPings(t, pod1, pod2)
		if err := next.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		got := wait()
		if got.status != 0 {
			t.Errorf("exit status %d: %s", got.status, got.stderr)
		}
		if strings.Contains(got.stderr, "data path taken over") {
			inherited++
		}
		if err := node.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("the data path was handed over %d times", inherited)
}

// TestTakeoverOfOneThatIsFrozen: a weftd that is stopped by SIGSTOP after it has handed over keeps no one
// from asking the next one, which names it and the remedy.
func TestTakeoverOfOneThatIsFrozen(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node := cluster.Nodes()[0]
	pid := node.PID()
	next, _ := startStuck(t, node)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, next.log) }() // so that it goes on
	remedy := fmt.Sprintf("kill -CONT %d", pid)
	eventually(t, "weft status to name it", func() error {
		if got := weft(t, node, "status"); got.status != 0 || !strings.Contains(got.stdout, remedy) {
			return fmt.Errorf("exit status %d: %s%s", got.status, got.stdout, got.stderr)
		}
		return nil
	})
	expectPings(t, pod1, pod2)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its end, and the warning to be cleared", func() error {
		if node.Crashed() == nil {
			return errors.New("it runs")
		}
		if got := weft(t, node, "status"); got.status != 0 || strings.Contains(got.stdout, remedy) {
			return fmt.Errorf("exit status %d: %s%s", got.status, got.stdout, got.stderr)
		}
		return nil
	})
	if err := next.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := next.cmd.Wait(); err != nil {
		t.Error(errors.Join(errors.New("the next one"), err))
	}
}
