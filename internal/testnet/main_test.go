package testnet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

const testPrefix = "weft-selftest"

// TestMain lets the test binary stand in for the programs that a Node runs: a test
// links it under their names. It is also the process that TestSweep… kills.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "weftd":
		os.Exit(standInDaemon())
	case "weft-cni":
		os.Exit(standInPlugin())
	}
	if os.Getenv(crashEnv) != "" {
		becomeVictim()
	}
	os.Exit(m.Run())
}

// linkPrograms returns a folder in which the test binary has the programs' names.
func linkPrograms(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"weftd", "weft-cni"} {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func newTestNet(t *testing.T) *Net {
	t.Helper()
	return ForTest(t, Options{Prefix: testPrefix})
}

func addNamespace(t *testing.T, n *Net, name string) *Namespace {
	t.Helper()
	ns, err := n.AddNamespace(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// mustEnd fails the test unless the process with this id ends.
func mustEnd(t *testing.T, pid int) {
	t.Helper()
	err := Wait(t.Context(), fmt.Sprintf("process %d to end", pid), func(context.Context) error {
		if command := process(pid).command(); command != "" {
			return fmt.Errorf("it runs: %s", command)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
