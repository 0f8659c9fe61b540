package testnet

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

const cgroupDir = "/sys/fs/cgroup"

// ownCgroups lists the outermost cgroups whose names match, of all controllers. A
// Machine's has the name of its namespace, so that a Net's are found by its own name.
func ownCgroups(pattern string) []string {
	// cgroups v2 have one tree, v1 have one for each controller.
	all, _ := filepath.Glob(filepath.Join(cgroupDir, pattern))
	separate, _ := filepath.Glob(filepath.Join(cgroupDir, "*", pattern))
	return append(all, separate...)
}

// makeCgroups makes an outermost cgroup in each tree of containers' controllers.
func makeCgroups(name string) error {
	if _, err := os.Stat(filepath.Join(cgroupDir, "cgroup.controllers")); err == nil {
		return os.MkdirAll(filepath.Join(cgroupDir, name), 0o755)
	}
	trees, err := os.ReadDir(cgroupDir)
	if err != nil {
		return err
	}
	for _, tree := range trees {
		if err := os.MkdirAll(filepath.Join(cgroupDir, tree.Name(), name), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// cgroupsBelow lists the cgroups in others, the innermost first.
func cgroupsBelow(parents []string) (below []string) {
	for _, parent := range parents {
		_ = filepath.WalkDir(parent, func(path string, entry os.DirEntry, err error) error {
			if err == nil && entry.IsDir() && path != parent {
				below = append(below, path)
			}
			return nil
		})
	}
	slices.Reverse(below)
	return below
}

// removeCgroups waits for what was just killed to leave them.
func removeCgroups(ctx context.Context, pattern string) error {
	return Wait(ctx, "the containers to leave their cgroups", func(context.Context) error {
		own := ownCgroups(pattern)
		for _, dir := range append(cgroupsBelow(own), own...) {
			// Two names may stand for one tree.
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	})
}
