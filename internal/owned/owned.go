// Package owned says whether other users of this host can change a file that weftd believes:
// its configuration, the list of nodes, keys and passwords. It only looks.
package owned

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Check returns why another user than root and this process's could change what is read at a
// path, or nil: the file, a folder above it, or a symbolic link on the way. Groups count as
// what root has made of them. A file that doesn't exist is none that was changed.
func Check(path string) error {
	return walk(path, check)
}

// Exposed returns why another user than root and this process's can read the file at a path,
// or nil. Its folders may keep them out.
func Exposed(path string) error {
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil || s.Mode&0o004 == 0 {
		return nil // its reader reports that it can't be read
	}
	closed := false
	err := walk(path, func(_ string, s *unix.Stat_t) error {
		closed = closed || s.Mode&unix.S_IFMT == unix.S_IFDIR && s.Mode&0o001 == 0
		return nil
	})
	if err != nil || closed {
		return nil
	}
	return fmt.Errorf("%s: every user can read it (mode %04o); chmod 600 %s", path, s.Mode&0o7777, path)
}

// most is how many symbolic links there may be on the way, as in the kernel (path_resolution(7)).
const most = 40

// walk calls each for every folder, symbolic link and file that the kernel comes across.
func walk(path string, each func(at string, s *unix.Stat_t) error) error {
	at, left := "/", strings.Split(filepath.Clean(path), "/")
	if !filepath.IsAbs(path) {
		dir, err := os.Getwd()
		if err != nil {
			return err
		}
		left = strings.Split(filepath.Join(dir, path), "/")
	}
	for links := 0; ; {
		var s unix.Stat_t
		if err := unix.Lstat(at, &s); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return fmt.Errorf("look at %s: %w", at, err)
		}
		if err := each(at, &s); err != nil {
			return err
		}
		if s.Mode&unix.S_IFMT == unix.S_IFLNK {
			target, err := os.Readlink(at)
			if links++; err != nil || links > most {
				return fmt.Errorf("follow %s: %w", at, errors.Join(err, unix.ELOOP))
			}
			if !filepath.IsAbs(target) {
				target = filepath.Join(filepath.Dir(at), target)
			}
			at, left = "/", append(strings.Split(filepath.Clean(target), "/"), left...)
			continue
		}
		for len(left) > 0 && left[0] == "" {
			left = left[1:]
		}
		if len(left) == 0 {
			return nil
		}
		at, left = filepath.Join(at, left[0]), left[1:]
	}
}

func check(at string, s *unix.Stat_t) error {
	if self := os.Geteuid(); s.Uid != 0 && int(s.Uid) != self {
		return fmt.Errorf("%s: it belongs to another user (%d), who can change it; chown %d %s", at, s.Uid, self, at)
	}
	writable, sticky := s.Mode&0o002 != 0, s.Mode&unix.S_ISVTX != 0
	switch kind := s.Mode & unix.S_IFMT; {
	case !writable, kind == unix.S_IFLNK, kind == unix.S_IFDIR && sticky, readOnly(at):
		return nil
	case kind == unix.S_IFDIR:
		return fmt.Errorf("%s: every user can write to this folder (mode %04o), and so replace its files; chmod o-w %s", at, s.Mode&0o7777, at)
	}
	return fmt.Errorf("%s: every user can write to it (mode %04o); chmod o-w %s", at, s.Mode&0o7777, at)
}

// readOnly says that nothing can be changed at a path, as where Kubernetes mounts ConfigMaps,
// which every user could write to otherwise.
func readOnly(path string) bool {
	var s unix.Statfs_t
	return unix.Statfs(path, &s) == nil && s.Flags&unix.ST_RDONLY != 0
}
