package testnet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Sweep removes the Nets with this prefix whose owner is gone, also those that it
// left by Keep, and returns their names. Nets of living owners are not touched.
func Sweep(ctx context.Context, prefix string) ([]string, error) {
	var swept []string
	err := withRegistryLock(ctx, func() (err error) {
		swept, err = sweepDead(ctx, prefix, true)
		return err
	})
	if err != nil {
		return swept, fmt.Errorf("sweep testnet %s: %w", prefix, err)
	}
	return swept, nil
}

// sweepDead is Sweep for a caller that holds the registry lock.
func sweepDead(ctx context.Context, prefix string, kept bool) ([]string, error) {
	slots, err := os.ReadDir(filepath.Join(stateRoot, prefix))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var swept []string
	var errs []error
	for _, entry := range slots {
		slot, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		c := &claim{prefix: prefix, slot: slot, dir: filepath.Join(stateRoot, prefix, entry.Name())}
		if _, err := os.Stat(filepath.Join(c.dir, keptFile)); err == nil && !kept {
			continue
		}
		c.owner, err = lockFile(filepath.Join(c.dir, ownerFile))
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.token = readToken(c.dir)
		errs = append(errs, c.clear(ctx), c.owner.Close())
		swept = append(swept, c.name())
	}
	return swept, errors.Join(errs...)
}

// reap kills every process in the named namespaces, and those for which also is
// true, and removes the namespaces.
func reap(ctx context.Context, names []string, also func(process) bool) error {
	var ids []namespaceID
	for _, name := range names {
		id, err := identify(filepath.Join(netnsDir, name))
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	err := killProcesses(ctx, func(p process) bool { return p.isIn(ids) || also(p) })
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		// As `ip netns del` does it: one that is not mounted is a file all the same.
		_ = unix.Unmount(filepath.Join(netnsDir, name), unix.MNT_DETACH)
		if err := os.Remove(filepath.Join(netnsDir, name)); err != nil {
			errs = append(errs, fmt.Errorf("remove namespace: %w", err))
		}
	}
	return errors.Join(errs...)
}

// noProcess is for reap where the namespaces identify the processes.
func noProcess(process) bool { return false }

// killProcesses kills until nothing matches: a process may fork while it is being
// looked for.
func killProcesses(ctx context.Context, match func(process) bool) error {
	return Wait(ctx, "the processes of the namespaces to end", func(context.Context) error {
		processes, err := findProcesses(match)
		if err != nil {
			return err
		}
		for _, p := range processes {
			p.kill()
		}
		if len(processes) > 0 {
			return fmt.Errorf("%d still run, among them %d (%s)", len(processes), processes[0], processes[0].command())
		}
		return nil
	})
}

// namespaceID distinguishes namespaces: the device and inode of the nsfs file.
type namespaceID struct{ device, inode uint64 }

func identify(path string) (namespaceID, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return namespaceID{}, fmt.Errorf("identify namespace %s: %w", path, err)
	}
	return namespaceID{st.Dev, st.Ino}, nil
}

// process is a process id.
type process int

// findProcesses lists the processes for which match is true. The calling one is never
// among them: its threads visit namespaces only for the length of a Do.
func findProcesses(match func(process) bool) ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var found []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && pid != os.Getpid() && match(process(pid)) {
			found = append(found, process(pid))
		}
	}
	return found, nil
}

func (p process) file(name string) string { return fmt.Sprintf("/proc/%d/%s", p, name) }

// isIn says whether the process is in one of the namespaces.
func (p process) isIn(ids []namespaceID) bool {
	// An error means that the process has ended in the meantime.
	id, err := identify(p.file("ns/net"))
	return err == nil && slices.Contains(ids, id)
}

// kill kills the process, and its whole group if it leads one: members may have
// moved to other namespaces. It ignores errors: ended processes are what is wanted.
func (p process) kill() {
	pid := int(p)
	if group, err := unix.Getpgid(pid); err == nil && group == pid {
		_ = unix.Kill(-pid, unix.SIGKILL)
	}
	_ = unix.Kill(pid, unix.SIGKILL)
}

func (p process) command() string {
	line, _ := os.ReadFile(p.file("cmdline"))
	return strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))
}

// hasEnviron says whether the process was started with the given NAME=value.
func (p process) hasEnviron(setting string) bool {
	environ, _ := os.ReadFile(p.file("environ"))
	return slices.Contains(strings.Split(string(environ), "\x00"), setting)
}
