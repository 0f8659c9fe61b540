package testnet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	crashEnv    = "TESTNET_OWNER_CRASH"
	crashPrefix = "weft-crashtest"
)

// becomeVictim makes a Net with a process in it that survives its owner, prints the
// names, and waits to be killed.
func becomeVictim() {
	n, err := New(context.Background(), Options{Prefix: crashPrefix, Detached: true})
	if err != nil {
		panic(err)
	}
	ns, err := n.AddNamespace(context.Background(), "a")
	if err != nil {
		panic(err)
	}
	cmd := ns.Command(context.Background(), "sleep", "1000")
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	fmt.Println(ns.Path(), cmd.Process.Pid)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// crash runs becomeVictim in a process of its own and kills it.
func crash(t *testing.T) (path string, pid int) {
	t.Helper()
	victim := exec.Command("/proc/self/exe")
	victim.Env = append(os.Environ(), crashEnv+"=1")
	victim.Stderr = os.Stderr
	stdin, err := victim.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fscan(bufio.NewReader(stdout), &path, &pid)
	_ = victim.Process.Kill()
	_ = victim.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return path, pid
}

func mustBeGone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Stat(path); err == nil {
		t.Errorf("%s still exists", path)
	}
}

func TestNewNetSweepsWhatACrashedOneLeft(t *testing.T) {
	path, pid := crash(t)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the crash left nothing to sweep: %v", err)
	}

	ForTest(t, Options{Prefix: crashPrefix})

	mustBeGone(t, path)
	mustEnd(t, pid)
}

func TestSweepRemovesTheDeadAndSparesTheLiving(t *testing.T) {
	alive := ForTest(t, Options{Prefix: crashPrefix})
	ns := addNamespace(t, alive, "a")
	path, pid := crash(t)

	swept, err := Sweep(t.Context(), crashPrefix)

	if err != nil || len(swept) != 1 || swept[0] == alive.Name() {
		t.Errorf("swept %v, %v", swept, err)
	}
	mustBeGone(t, path)
	mustEnd(t, pid)
	if _, err := ns.Exec(t.Context(), "true"); err != nil {
		t.Error(err)
	}
}

func TestNetsWithOnePrefixLiveSideBySide(t *testing.T) {
	a, b := addNamespace(t, newTestNet(t), "x"), addNamespace(t, newTestNet(t), "x")
	if a.Name() == b.Name() {
		t.Errorf("both are called %s", a.Name())
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	n, err := New(t.Context(), Options{Prefix: testPrefix})
	if err != nil {
		t.Fatal(err)
	}
	ns := addNamespace(t, n, "a")
	stubborn := ns.Command(context.Background(), "sh", "-c", "trap '' TERM HUP INT; setsid sleep 1000 & wait")
	if err := stubborn.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = stubborn.Wait() }()
	left, err := n.Leftovers(t.Context())
	if err != nil || !slices.Contains(left, "namespace "+ns.Name()) || !slices.Contains(left, "folder "+n.Dir()) {
		t.Errorf("while it stands, Leftovers says %v, %v", left, err)
	}

	if err := n.Close(); err != nil {
		t.Fatal(err)
	}

	if left, err := n.Leftovers(t.Context()); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := n.AddNamespace(t.Context(), "b"); err == nil {
		t.Error("a closed Net takes a namespace")
	}
	if _, err := n.launch(ns.Command(t.Context(), "sleep", "1000"), filepath.Join(t.TempDir(), "log")); !errors.Is(err, errClosed) {
		t.Errorf("a program started in a closed Net: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Errorf("the second Close: %v", err)
	}
}

func TestNetIsClosedWhenItsContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n, err := New(ctx, Options{Prefix: testPrefix})
	if err != nil {
		t.Fatal(err)
	}
	addNamespace(t, n, "a")

	cancel()

	err = Wait(t.Context(), "the clean-up", func(ctx context.Context) error {
		left, err := n.Leftovers(ctx)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left: %v", left)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestKeptNetStaysUntilSweep(t *testing.T) {
	const prefix = "weft-keeptest"
	n, err := New(t.Context(), Options{Prefix: prefix, Detached: true})
	if err != nil {
		t.Fatal(err)
	}
	ns := addNamespace(t, n, "a")
	if err := n.Keep(); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	ForTest(t, Options{Prefix: prefix})
	if _, err := os.Stat(ns.Path()); err != nil {
		t.Errorf("a kept Net did not survive the next one: %v", err)
	}

	swept, err := Sweep(t.Context(), prefix)

	if err != nil || !slices.Equal(swept, []string{n.Name()}) {
		t.Errorf("swept %v, %v", swept, err)
	}
	mustBeGone(t, ns.Path())
	mustBeGone(t, n.Dir())
}

func TestKeepIsRefusedWithoutDetachedProcesses(t *testing.T) {
	if err := newTestNet(t).Keep(); err == nil {
		t.Error("kept what dies with this process")
	}
}

func TestPrefixThatCouldMeanAnotherNetIsRefused(t *testing.T) {
	for _, prefix := range []string{"", "weft1", "Weft", "-weft", "../weft"} {
		if _, err := New(t.Context(), Options{Prefix: prefix}); err == nil || !strings.Contains(err.Error(), "prefix") {
			t.Errorf("prefix %q: got %v", prefix, err)
		}
	}
}
