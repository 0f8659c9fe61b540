package testnet

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// stateRoot holds one folder per Net:
//
//	/run/weft-testnet/lock                 taken while claims are made or removed; stays
//	/run/weft-testnet/weft-demo/0/owner    locked as long as the owner lives
//	/run/weft-testnet/weft-demo/0/kept     the owner left it running on purpose
//	/run/weft-testnet/weft-demo/0/node1/   files of a node
//
// The owner is recognised by its file lock and not by a process id: the kernel
// releases a lock however the process ends, and ids come back.
const stateRoot = "/run/weft-testnet"

const (
	ownerFile = "owner"
	keptFile  = "kept"
)

// netnsDir is where iproute2 keeps named namespaces.
const netnsDir = "/run/netns"

// claim is the right to use the names that begin with a prefix and a slot number.
type claim struct {
	prefix string
	slot   int
	dir    string

	// token distinguishes the claim from an earlier or later one to the same slot.
	token string
	owner *os.File
}

func (c *claim) name() string { return c.prefix + strconv.Itoa(c.slot) }

// newClaim removes what dead owners left under prefix and takes the lowest free slot.
func newClaim(ctx context.Context, prefix string) (*claim, error) {
	var made *claim
	err := withRegistryLock(ctx, func() error {
		if _, err := sweepDead(ctx, prefix, false); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(stateRoot, prefix), 0o755); err != nil {
			return err
		}
		var err error
		made, err = takeSlot(prefix)
		return err
	})
	return made, err
}

func takeSlot(prefix string) (*claim, error) {
	for slot := 0; ; slot++ {
		dir := filepath.Join(stateRoot, prefix, strconv.Itoa(slot))
		err := os.Mkdir(dir, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		owner, err := lockFile(filepath.Join(dir, ownerFile))
		if err != nil {
			return nil, err
		}
		c := &claim{prefix: prefix, slot: slot, dir: dir, token: rand.Text(), owner: owner}
		// The token is read by readToken, the rest by people.
		if _, err := fmt.Fprintf(owner, "%s %d %s\n", c.token, os.Getpid(), strings.Join(os.Args, " ")); err != nil {
			return nil, errors.Join(err, owner.Close())
		}
		return c, nil
	}
}

// readToken returns the token of the claim in dir, empty if there is no claim, or
// one whose owner died before it had written any.
func readToken(dir string) string {
	content, _ := os.ReadFile(filepath.Join(dir, ownerFile))
	token, _, _ := strings.Cut(string(content), " ")
	return token
}

// marker is an environment variable of every process that is started under the
// claim. It finds those that are not yet, or no longer, in one of its namespaces.
// It does not begin with WEFT_: weftd refuses such variables if it does not know them.
func (c *claim) marker() string { return "TESTNET=" + c.name() + "-" + c.token }

// marks says whether the process was started under the claim.
func (c *claim) marks(p process) bool { return c.token != "" && p.hasEnviron(c.marker()) }

// keep gives the claim up but leaves what stands under it until Sweep.
func (c *claim) keep() error {
	err := os.WriteFile(filepath.Join(c.dir, keptFile), nil, 0o644)
	return errors.Join(err, c.owner.Close())
}

// remove removes everything that stands under the claim, and the claim.
func (c *claim) remove(ctx context.Context) error {
	return withRegistryLock(ctx, func() error {
		return errors.Join(c.clear(ctx), c.owner.Close())
	})
}

// clear is remove for a caller that holds the registry lock. The folder goes last:
// as long as it is there, a later sweep tries again.
func (c *claim) clear(ctx context.Context) error {
	names, err := c.namespaces()
	if err != nil {
		return err
	}
	if err := reap(ctx, names, c.marks); err != nil {
		return err
	}
	if err := removeCgroups(ctx, c.cgroups()); err != nil {
		return err
	}
	if err := os.RemoveAll(c.dir); err != nil {
		return err
	}
	// Fails as long as other Nets use the prefix, which is as it should be.
	_ = os.Remove(filepath.Dir(c.dir))
	return nil
}

// leftovers lists what exists under the claim, or outlived it.
func (c *claim) leftovers(ctx context.Context) (left []string, err error) {
	err = withRegistryLock(ctx, func() error {
		processes, err := findProcesses(c.marks)
		if err != nil {
			return err
		}
		for _, p := range processes {
			left = append(left, fmt.Sprintf("process %d (%s)", p, p.command()))
		}
		if _, err := os.Stat(c.dir); err == nil {
			if readToken(c.dir) != c.token {
				return nil // The slot, and the names that go with it, are another's by now.
			}
			left = append(left, "folder "+c.dir)
		}
		for _, dir := range ownCgroups(c.cgroups()) {
			left = append(left, "cgroup "+dir)
		}
		names, err := c.namespaces()
		for _, name := range names {
			left = append(left, "namespace "+name)
		}
		return err
	})
	return left, err
}

// cgroups is the pattern that the names of the claim's cgroups match.
func (c *claim) cgroups() string { return c.name() + "-*" }

// namespaces lists the namespaces that carry the claim's name.
func (c *claim) namespaces() ([]string, error) {
	entries, err := os.ReadDir(netnsDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), c.name()+"-") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// withRegistryLock keeps others from claiming or removing while f runs.
func withRegistryLock(ctx context.Context, f func() error) error {
	if err := os.MkdirAll(stateRoot, 0o755); err != nil {
		return err
	}
	var lock *os.File
	err := Wait(ctx, "the lock on "+stateRoot, func(context.Context) (err error) {
		lock, err = lockFile(filepath.Join(stateRoot, "lock"))
		return err
	})
	if err != nil {
		return err
	}
	defer lock.Close()
	return f()
}

// lockFile opens and locks path. The error wraps unix.EWOULDBLOCK when another
// process, or another claim of this one, holds the lock. Closing the file unlocks.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return f, nil
}
