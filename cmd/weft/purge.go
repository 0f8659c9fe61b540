package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"weft/cniplugin"
	list "weft/control/snapshot"
	"weft/internal/alone"
	"weft/internal/config"
	"weft/ipam"
)

// purge removes what weft keeps through a reboot, and its plugin. Of the folders only those go in which
// nothing else is.
func (t *teardown) purge(c config.Config) error {
	t.Purged = true
	for _, path := range []string{filepath.Join(c.StateDir, ipam.DirName), filepath.Join(c.StateDir, list.Name), c.KeyFile,
		filepath.Join(c.CNI.BinDir, cniplugin.Type), filepath.Join(c.RunDir, alone.LockName)} {
		if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("purge: %w", err)
		}
		t.Removed = append(t.Removed, path)
	}
	for _, dir := range []string{c.StateDir, c.RunDir} {
		if err := os.Remove(dir); err == nil {
			t.Removed = append(t.Removed, dir)
		}
	}
	return nil
}
