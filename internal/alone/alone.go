// Package alone makes sure that one process at a time changes what weft has on a host.
package alone

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LockName is the file in the run directory whose lock (flock(2)) a running weftd holds.
const LockName = "weftd.lock"

// ErrRuns says that a weftd uses the run directory.
var ErrRuns = errors.New("a weftd runs already")

// Lock makes sure, until the result is closed or the process ends, that no other weftd uses
// this run directory: routes, rules and guard table have one owner. It makes the directory.
// Only its owner may write there, or any local user could keep weftd from starting.
func Lock(runDir string) (*os.File, error) {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return nil, fmt.Errorf("make the run directory: %w", err)
	}
	if err := check(runDir); err != nil {
		return nil, err
	}
	path := filepath.Join(runDir, LockName)
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open weftd's lock: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		held, _ := os.ReadFile(path)
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w (pid %s holds %s); stop it first", ErrRuns, strings.TrimSpace(string(held)), path)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if !is(lock, path) { // a teardown has removed it meanwhile
		lock.Close()
		return Lock(runDir)
	}
	Sign(lock)
	return lock, nil
}

// is reports whether path still leads to the file.
func is(file *os.File, path string) bool {
	got, gotErr := file.Stat()
	want, wantErr := os.Stat(path)
	return gotErr == nil && wantErr == nil && os.SameFile(got, want)
}

// Adopt goes on with the lock that another process has handed over. It holds as long as one of both
// has it open, so there is no moment at which a third one could get it. The other process may still go
// on itself: the caller signs when it can't any more.
func Adopt(runDir string, lock *os.File) error {
	if err := check(runDir); err != nil {
		return err
	}
	path := filepath.Join(runDir, LockName)
	got, err := lock.Stat()
	if err != nil {
		return fmt.Errorf("look at the lock that was handed over: %w", err)
	}
	want, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("look at weftd's lock: %w", err)
	}
	if !os.SameFile(got, want) {
		return fmt.Errorf("the lock that was handed over is not %s", path)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	return nil
}

// check returns nil if only the owner of the run directory may write there.
func check(runDir string) error {
	info, err := os.Stat(runDir)
	if err != nil {
		return fmt.Errorf("look at the run directory: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		return fmt.Errorf("%s: others may write to the run directory (mode %04o); run chmod 755 %s", runDir, mode, runDir)
	}
	return nil
}

// Sign writes this process's number for people; only the lock counts.
func Sign(lock *os.File) {
	_ = lock.Truncate(0)
	_, _ = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
}

// Held reports whether a weftd uses the run directory, which may be absent.
func Held(runDir string) (bool, error) {
	lock, err := os.OpenFile(filepath.Join(runDir, LockName), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open weftd's lock: %w", err)
	}
	defer lock.Close()
	err = unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	return false, nil
}
