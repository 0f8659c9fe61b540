// Package newfile writes files that must not replace others: keys, and configurations that an
// operator may have edited.
package newfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Write makes a file with a text whole or not at all, also if the host crashes. It replaces nothing:
// what is at the path already, even a link that leads nowhere, stays as it is, and the error wraps
// fs.ErrExist.
func Write(path string, text []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, filepath.Base(path)+".*") // with mode 0600
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no folder %s; make it with: mkdir -p %s", dir, dir)
	}
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.Write(text)
	if err := errors.Join(err, file.Chmod(mode), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Link(file.Name(), path)
}
