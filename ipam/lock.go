package ipam

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Hold makes the caller the only one that works on attachment a, on this network or
// another of the same state directory, until it calls release or dies. It is what lets
// a release of a lease be sure that no half-finished wiring still uses it. Holding one
// attachment delays no other.
func (s *Store) Hold(ctx context.Context, a Attachment) (release func(), err error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("hold %s: %w", a, err)
	}
	// One byte of one file stands for each attachment, so no lock file is ever left to be
	// cleaned up. Two attachments on one byte would merely wait for each other.
	sum := sha256.Sum256([]byte(a.String()))
	position := int64(binary.BigEndian.Uint64(sum[:8]) >> 2)
	release, err = lockWith(ctx, filepath.Join(s.dir, "attachments"), func(fd uintptr) error {
		return unix.FcntlFlock(fd, unix.F_OFD_SETLKW, &unix.Flock_t{
			Type: unix.F_WRLCK, Whence: io.SeekStart, Start: position, Len: 1,
		})
	})
	if err != nil {
		return nil, fmt.Errorf("hold %s: %w", a, err)
	}
	return release, nil
}

// lockFile takes the flock(2) lock of the file at path, which it creates if need be.
func lockFile(ctx context.Context, path string) (unlock func(), err error) {
	return lockWith(ctx, path, func(fd uintptr) error { return unix.Flock(int(fd), unix.LOCK_EX) })
}

// lockWith waits in take, a system call that blocks until it has a lock on the file at
// path. The kernel drops the lock when the file is closed, or when the process dies.
func lockWith(ctx context.Context, path string, take func(fd uintptr) error) (unlock func(), err error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, LockTimeout)
		defer cancel()
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	taken := make(chan error, 1)
	go func() {
		err := take(f.Fd())
		for errors.Is(err, unix.EINTR) {
			err = take(f.Fd())
		}
		taken <- err
	}()
	select {
	case err := <-taken:
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return func() { f.Close() }, nil
	case <-ctx.Done():
		// A lock that arrives after all must not stay with nobody.
		go func() {
			<-taken
			f.Close()
		}()
		return nil, fmt.Errorf("%s: %w (%w)", path, ErrLocked, ctx.Err())
	}
}
