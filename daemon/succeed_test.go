package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/daemon/handover"
	"weft/internal/alone"
	"weft/internal/config"
	"weft/internal/testnet"
)

// nextDaemon is a weftd that starts with this run directory, and does not wait long for the one before.
func nextDaemon(t *testing.T, runDir string) *daemon {
	t.Helper()
	limit := endLimit
	endLimit = 100 * time.Millisecond
	t.Cleanup(func() { endLimit = limit })
	return newDaemon(config.Config{RunDir: runDir, StateDir: runDir, CNI: config.CNI{Name: "weft"}}, slog.New(slog.DiscardHandler), nil)
}

// TestStartWaitsForTheLock of a weftd that ends, and says which process it is if that does not end.
func TestStartWaitsForTheLock(t *testing.T) {
	dir := t.TempDir()
	held, err := alone.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := nextDaemon(t, dir)
	want := fmt.Sprintf("has not ended for %v: a weftd runs already (pid %d holds %s); stop it first", endLimit, os.Getpid(), filepath.Join(dir, "weftd.lock"))
	if err := d.awaitLock(t.Context()); !errors.Is(err, alone.ErrRuns) || !strings.Contains(err.Error(), want) {
		t.Errorf("it does not end: %v, want %q", err, want)
	}
	endLimit = testnet.WaitLimit
	time.AfterFunc(50*time.Millisecond, func() { held.Close() })
	if err := d.awaitLock(t.Context()); err != nil || d.lock == nil {
		t.Fatalf("it ends: %v", err)
	}
	d.lock.Close()
}

// TestPredecessorThatDoesNotEnd is a warning until it has ended, and keeps no weftd from being asked.
func TestPredecessorThatDoesNotEnd(t *testing.T) {
	dir := t.TempDir()
	socket, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: filepath.Join(dir, handover.SocketName), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		if conn, err := socket.Accept(); err == nil {
			_, _ = conn.Write([]byte(`{"refused": "it hangs"}`))
			accepted <- conn
		}
	}()
	process, _, err := handover.Ask(dir, handover.Spec{})
	if !errors.Is(err, handover.ErrRefused) {
		t.Fatal(err)
	}
	d := nextDaemon(t, dir)
	d.awaitEnd(t.Context(), &predecessor{process: process})
	if got := d.Warnings(); len(got) != 1 || got[0].Code != "predecessor" || !strings.Contains(got[0].Text, fmt.Sprintf("kill -CONT %d", os.Getpid())) {
		t.Fatalf("warnings: %v", got)
	}
	(<-accepted).Close() // as its end does
	if err := testnet.Wait(t.Context(), "the warning to be cleared", func(context.Context) error {
		if got := d.Warnings(); len(got) > 0 {
			return fmt.Errorf("warnings: %v", got)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
