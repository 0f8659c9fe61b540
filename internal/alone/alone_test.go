package alone_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/alone"
)

func TestLockIsHeldByOne(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	held := func(want bool) {
		t.Helper()
		if got, err := alone.Held(dir); err != nil || got != want {
			t.Errorf("held: %v, %v; want %v", got, err, want)
		}
	}
	held(false)
	first, err := alone.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alone.Lock(dir); !errors.Is(err, alone.ErrRuns) || !strings.Contains(err.Error(), "pid ") {
		t.Errorf("a second one: %v", err)
	}
	held(true)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	held(false)
	second, err := alone.Lock(dir)
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	// A lock that is handed over is held all the time.
	descriptor, err := unix.FcntlInt(second.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	third := os.NewFile(uintptr(descriptor), "lock")
	if err := alone.Adopt(dir, third); err != nil {
		t.Error(err)
	}
	second.Close()
	held(true)
	third.Close()
	held(false)
	other, err := os.Create(filepath.Join(dir, "other"))
	if err != nil {
		t.Fatal(err)
	}
	if err := alone.Adopt(dir, other); err == nil || !strings.Contains(err.Error(), "the lock that was handed over is not") {
		t.Errorf("another file: %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, "weftd.lock"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the lock has mode %v, %v: other users could take it", info.Mode(), err)
	}
}

func TestLockRefusesAnOpenFolder(t *testing.T) {
	dir := t.TempDir()
	for _, mode := range []os.FileMode{0o777, 0o775, 0o1777 | os.ModeSticky} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := alone.Lock(dir); err == nil || !strings.Contains(err.Error(), "chmod 755 "+dir) {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// A link that another user left there leads nowhere.
	if err := os.Symlink("/nowhere", filepath.Join(dir, "weftd.lock")); err != nil {
		t.Fatal(err)
	}
	if _, err := alone.Lock(dir); err == nil {
		t.Error("the lock was followed to elsewhere")
	}
}

// TestARemovedLockIsNone: `weft teardown --purge` removes the file. A process that has opened it before
// must not hold a lock that others don't find.
func TestARemovedLockIsNone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	var holders atomic.Int32
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 2000 {
				lock, err := alone.Lock(dir)
				if errors.Is(err, alone.ErrRuns) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if holders.Add(1) > 1 {
					t.Error("two hold the lock")
				}
				runtime.Gosched()
				holders.Add(-1)
				_ = os.Remove(filepath.Join(dir, alone.LockName)) // last of all
				lock.Close()
			}
		})
	}
	group.Wait()
}
