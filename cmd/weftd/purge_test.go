package main_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/testnet"
)

// TestTeardownWaitsAndPurges: `weft teardown --wait` says what it waits for, and --purge leaves nothing of
// weft's, and all that is not.
func TestTeardownWaitsAndPurges(t *testing.T) {
	t.Parallel()
	plugins := t.TempDir()
	cluster := newCluster(t, testnet.ClusterOptions{Nodes: 1, Sealed: true, Configure: func(weft map[string]any) {
		weft["cni"].(map[string]any)["binDir"] = plugins
	}})
	node := cluster.Nodes()[0]
	foreign := filepath.Join(node.Dir(), "state", "another's")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := weft(t, node, "install-cni", "--to", plugins); got.status != 0 || !exists(filepath.Join(plugins, "weft-cni")) {
		t.Fatalf("weft install-cni: exit status %d: %s", got.status, got.stderr)
	}
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	addPod(t, node, "a")

	said := new(lockedBuffer)
	cmd := node.Command(t.Context(), filepath.Join(binDir, "weft"), "teardown", "--config", configFile(node), "--wait", "--purge", "--stay")
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	says := func(what string) {
		t.Helper()
		eventually(t, "it to say "+what, func() error {
			if !strings.Contains(said.String(), what) {
				return errors.New(said.String())
			}
			return nil
		})
	}
	says("a weftd runs already")
	if err := node.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	says("1 pod still on this node")
	if err := node.DeletePod(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	says("removed " + filepath.Join(plugins, "weft-cni"))
	for _, path := range []string{node.KeyFile(), filepath.Join(plugins, "weft-cni"), filepath.Join(node.Dir(), "state", "ipam"), conflist(node)} {
		if exists(path) {
			t.Errorf("%s is left", path)
		}
	}
	if !exists(foreign) {
		t.Errorf("%s is gone", foreign)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal("it has not stayed:", err)
	}
	if err := cmd.Wait(); err != nil || strings.Contains(said.String(), "kept:") {
		t.Errorf("it ends with %v: %s", err, said)
	}
}

// TestTeardownSeesAPodThatIsBeingAdded: a pod that comes after `weft teardown` has seen none keeps its
// protection.
func TestTeardownSeesAPodThatIsBeingAdded(t *testing.T) {
	t.Parallel()
	node := newCluster(t, testnet.ClusterOptions{Nodes: 1, Sealed: true}).Nodes()[0]
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := node.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	// It stops where it reads the conflist.
	dir := t.TempDir()
	fifo := filepath.Join(dir, "10-weft.conflist")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	torn := make(chan outcome, 1)
	go func() { torn <- teardown(t, node, "--cni-conf-dir", dir) }()
	content, err := os.OpenFile(fifo, os.O_WRONLY, 0) // waits for it
	if err != nil {
		t.Fatal(err)
	}
	addPod(t, node, "a")
	content.Close()
	if got := <-torn; got.status != 1 || !strings.Contains(got.stderr, "1 pod still on this node") {
		t.Errorf("exit status %d: %s", got.status, got.stderr)
	}
	if tables := run(t, node.Namespace, "nft", "list", "tables"); !strings.Contains(tables, "table inet weft") {
		t.Errorf("the guard is gone: %s", tables)
	}
	if pod, err := node.AddPod(t.Context(), "b"); err == nil {
		t.Errorf("another pod was added then: %v", pod.Addrs)
	}
}

// lockedBuffer is read while a program writes to it.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
