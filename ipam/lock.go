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
//
// The error wraps ErrLocked if another holder still has a when ctx is done.
func (s *Store) Hold(ctx context.Context, a Attachment) (release func(), err error) {
	release, err = s.lock(ctx, attachmentsFile, position(a))
	if err != nil {
		return nil, fmt.Errorf("hold %s: %w", a, err)
	}
	return release, nil
}

// TryHold is Hold without a wait: ok is false if another holder works on the attachment.
func (s *Store) TryHold(a Attachment) (release func(), ok bool, err error) {
	f, err := s.openLock(attachmentsFile)
	if err != nil {
		return nil, false, fmt.Errorf("hold %s: %w", a, err)
	}
	err = lockByte(f, position(a), unix.F_OFD_SETLK)
	if err == nil {
		return func() { _ = f.Close() }, true, nil // nothing was written
	}
	if isHeld(err) {
		err = nil
	}
	return nil, false, errors.Join(err, f.Close())
}

// isHeld reports whether another holder has a lock (F_SETLK in fcntl(2)).
func isHeld(err error) bool { return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) }

// One byte of this file stands for each attachment, so no lock file is ever left to be
// cleaned up. Two attachments on one byte would merely wait for each other.
const attachmentsFile = "attachments"

func position(a Attachment) int64 {
	sum := sha256.Sum256([]byte(a.String()))
	return int64(binary.BigEndian.Uint64(sum[:8]) >> 1) // off_t is signed
}

func (s *Store) openLock(name string) (*os.File, error) {
	dir := dirIn(s.stateDir)
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, 0o600)
}

// lock waits until it has locked one byte of the file called name, which it creates if
// need be. The lock belongs to the open file and not to the process or thread (F_OFD_SETLKW
// in fcntl(2)): it also keeps out other callers in this process, and the kernel drops it
// when the file is closed or the process dies.
func (s *Store) lock(ctx context.Context, name string, position int64) (unlock func(), err error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, LockTimeout)
		defer cancel()
	}
	f, err := s.openLock(name)
	if err != nil {
		return nil, err
	}
	// Mostly the lock is free, and no thread need wait for it.
	switch err := lockByte(f, position, unix.F_OFD_SETLK); {
	case err == nil:
		return func() { _ = f.Close() }, nil // nothing was written
	case !isHeld(err):
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	// The system call has no deadline, so it waits in a goroutine of its own.
	var failed error
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		failed = lockByte(f, position, unix.F_OFD_SETLKW)
	}()
	select {
	case <-returned:
		if failed != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), failed), f.Close())
		}
		return func() { _ = f.Close() }, nil // nothing was written
	case <-ctx.Done():
		// A lock that arrives after all must not stay held.
		go func() {
			<-returned
			_ = f.Close()
		}()
		return nil, fmt.Errorf("%s: %w (%w)", f.Name(), ErrLocked, ctx.Err())
	}
}

// lockByte locks one byte of f, by F_OFD_SETLK or, to wait for it, F_OFD_SETLKW.
func lockByte(f *os.File, position int64, how int) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: position, Len: 1}
	for {
		if err := unix.FcntlFlock(f.Fd(), how, &lock); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
