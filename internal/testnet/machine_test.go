package testnet

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func newTestMachine(t *testing.T) *Machine {
	t.Helper()
	n := ForTest(t, Options{Prefix: testPrefix, BinDir: linkPrograms(t)})
	node, err := n.AddNode(t.Context(), NodeOptions{NodeEntry: NodeEntry{Name: "node1", Endpoint: netip.MustParseAddrPort("192.168.77.1:9338")}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := node.NewMachine(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMachineKeepsItsFilesApart(t *testing.T) {
	m := newTestMachine(t)
	before, err := os.ReadFile("/proc/sys/kernel/panic_on_oops")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"/run/a", "/var/lib/a", "/var/log/a"} {
		if err := m.inside(t.Context(), "touch", file); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(m.Path(file)); err != nil {
			t.Error(err)
		}
		mustBeGone(t, file)
	}
	if err := m.inside(t.Context(), "sh", "-c", "echo 7 >/proc/sys/kernel/panic_on_oops"); err != nil {
		t.Error(err)
	}
	if after, err := os.ReadFile("/proc/sys/kernel/panic_on_oops"); err != nil || string(after) != string(before) {
		t.Errorf("the host's panic_on_oops was %q and is %q, %v", before, after, err)
	}
	// The node's folder is in /run.
	if err := m.inside(t.Context(), "test", "-d", m.RunDir()); err != nil {
		t.Error(err)
	}
}

func TestMachineServiceRestarts(t *testing.T) {
	m := newTestMachine(t)
	ready := filepath.Join(m.dir, "ready")
	s := m.newService("test", "sh", []string{"-c", "trap 'echo asked; exit' TERM; touch " + ready + "; while :; do sleep 0.1; done"},
		func(context.Context) error { _, err := os.Stat(ready); return err })
	for _, tt := range []struct {
		end   func() error
		asked bool
	}{
		{func() error { s.Kill(); return nil }, false},
		{func() error { return s.Stop(t.Context()) }, true},
	} {
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context()); err == nil {
			t.Error("started twice")
		}
		if err := tt.end(); err != nil {
			t.Error(err)
		}
		if asked := strings.Contains(s.LogTail(5), "asked\n"); asked != tt.asked {
			t.Errorf("asked to end: %v, want %v", asked, tt.asked)
		}
		if err := os.Remove(ready); err != nil {
			t.Error(err)
		}
	}
}

func TestServiceThatEndsShowsItsLog(t *testing.T) {
	m := newTestMachine(t)
	s := m.newService("test", "sh", []string{"-c", "echo because; exit 3"}, func(context.Context) error { return fmt.Errorf("not ready") })
	err := s.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "because") {
		t.Errorf("got %v", err)
	}
}

func TestCloseRemovesTheContainersCgroups(t *testing.T) {
	m := newTestMachine(t)
	if err := makeCgroups(m.name); err != nil {
		t.Fatal(err)
	}
	for _, dir := range ownCgroups(m.name) {
		if err := os.MkdirAll(filepath.Join(dir, "pod", "container"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if len(m.Cgroups()) == 0 {
		t.Fatal("there are no cgroups")
	}
	left, err := m.net.Leftovers(t.Context())
	if err != nil || !slices.ContainsFunc(left, func(l string) bool { return strings.HasPrefix(l, "cgroup ") }) {
		t.Errorf("Leftovers says %v, %v", left, err)
	}
	// A process that is no child of the machine's holder, in a cgroup of it.
	cmd := m.Inside(context.Background(), "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
	procs := filepath.Join(ownCgroups(m.name)[0], "cgroup.procs")
	if err := os.WriteFile(procs, fmt.Append(nil, cmd.Process.Pid), 0o644); err != nil {
		t.Fatal(err)
	}

	if err := m.net.Close(); err != nil {
		t.Fatal(err)
	}

	if dirs := ownCgroups(m.name); len(dirs) > 0 {
		t.Errorf("left behind: %v", dirs)
	}
}
