package ipam

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// CheckDir returns why files such as leases can't be written in a folder, or nil. It writes nothing. A
// folder that is not there yet can be made in the nearest one above that is.
func CheckDir(dir string) error {
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		dir = filepath.Dir(dir)
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return fmt.Errorf("%w; make it writable", &fs.PathError{Op: "write", Path: dir, Err: err})
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	// A lease file is written anew each time, and takes less.
	const least = 1 << 20
	switch {
	case stat.Blocks > 0 && stat.Bavail*uint64(stat.Bsize) < least:
		return fmt.Errorf("the disk with %s is full; make room", dir)
	case stat.Files > 0 && stat.Ffree == 0:
		return fmt.Errorf("the disk with %s has no inode left; remove files", dir)
	}
	return nil
}
