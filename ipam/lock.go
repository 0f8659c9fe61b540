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
// The error wraps ErrLocked if somebody else still holds a when ctx is done.
func (s *Store) Hold(ctx context.Context, a Attachment) (release func(), err error) {
	// One byte of one file stands for each attachment, so no lock file is ever left to be
	// cleaned up. Two attachments on one byte would merely wait for each other.
	sum := sha256.Sum256([]byte(a.String()))
	position := int64(binary.BigEndian.Uint64(sum[:8]) >> 1) // off_t is signed
	release, err = s.lock(ctx, "attachments", position)
	if err != nil {
		return nil, fmt.Errorf("hold %s: %w", a, err)
	}
	return release, nil
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
	if err := makeDir(s.dir); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.dir, name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	// The system call can't be told to give up, so it waits in a goroutine of its own.
	var failed error
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		failed = lockByte(f, position)
	}()
	select {
	case <-returned:
		if failed != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), failed), f.Close())
		}
		return func() { _ = f.Close() }, nil // nothing was written
	case <-ctx.Done():
		// A lock that arrives after all must not stay with nobody.
		go func() {
			<-returned
			_ = f.Close()
		}()
		return nil, fmt.Errorf("%s: %w (%w)", f.Name(), ErrLocked, ctx.Err())
	}
}

func lockByte(f *os.File, position int64) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: position, Len: 1}
	for {
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, &lock); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
