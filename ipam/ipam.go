// Package ipam keeps a node's leases: which pod address is held by which
// (container, interface) attachment.
//
// It is a library over one small file per network and needs no daemon. Every change
// replaces the file as a whole under a lock, so a process killed between any two
// system calls leaves the old leases or the new ones, never something between. It
// never touches links, routes or namespaces, never guesses at a file that it can't
// verify, and never gives an address to two attachments.
package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"
)

// LockTimeout bounds the wait for a lock when the caller's context sets no deadline.
const LockTimeout = 10 * time.Second

// maxNetworkName is the length in bytes of the longest network name: with every
// suffix that this package adds it still is a file name (NAME_MAX).
const maxNetworkName = 200

var (
	// ErrExhausted says that a family has no address left in any of its ranges.
	ErrExhausted = errors.New("no free address")

	// ErrLocked says that another process held a lock for longer than the wait allowed.
	ErrLocked = errors.New("locked by another process")

	// ErrCorrupt says that the lease file is not what this package wrote.
	ErrCorrupt = errors.New("lease file is damaged")
)

// Attachment names one interface of one container.
type Attachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"`
}

func (a Attachment) String() string { return a.ContainerID + "/" + a.IfName }

// Lease is what an attachment holds: one address of each family that the network has.
type Lease struct {
	Attachment
	Addresses []netip.Addr `json:"addresses"`
}

// Store is the leases of one network. It holds nothing open between calls, and any
// number of processes may use their own Store of the same network at once.
type Store struct {
	dir     string
	network string
}

// Open returns the leases of network, kept below stateDir. It creates nothing; the
// first call that waits for a lock does.
func Open(stateDir, network string) (*Store, error) {
	if !filepath.IsAbs(stateDir) {
		return nil, fmt.Errorf("state directory %q: the path must be absolute", stateDir)
	}
	if network == "" || len(network) > maxNetworkName || strings.HasPrefix(network, ".") || strings.ContainsAny(network, "/\x00") {
		return nil, fmt.Errorf("network name %q: must be a plain file name of 1 to %d bytes", network, maxNetworkName)
	}
	return &Store{dir: filepath.Join(stateDir, "ipam"), network: network}, nil
}

// Path returns the path of the lease file.
func (s *Store) Path() string { return filepath.Join(s.dir, s.network+".json") }

// Acquire leases to a one address of each family that ranges has, all of them or none.
// Ranges of one family are tried in order; reserved addresses are never given out.
//
// An attachment that already has a lease gets the same one back, and existed is true.
// If the ranges changed so that its lease no longer fits them, the lease is replaced.
// The error wraps ErrExhausted, ErrLocked or ErrCorrupt where that is the cause.
func (s *Store) Acquire(ctx context.Context, a Attachment, ranges []netip.Prefix, reserved []netip.Addr) (lease Lease, existed bool, err error) {
	if a.ContainerID == "" || a.IfName == "" {
		return Lease{}, false, errors.New("acquire lease: the attachment is incomplete")
	}
	sp, err := newSpace(ranges, reserved)
	if err != nil {
		return Lease{}, false, fmt.Errorf("acquire lease for %s: %w", a, err)
	}
	err = s.update(ctx, func(st *state) (altered bool, err error) {
		if lease, existed = st.find(a); existed && sp.fits(lease.Addresses) {
			return false, nil
		}
		st.remove(a)
		existed = false
		lease, err = st.allocate(a, sp)
		return true, err
	})
	if err != nil {
		return Lease{}, false, fmt.Errorf("acquire lease for %s: %w", a, err)
	}
	return lease, existed, nil
}

// Release gives back what a holds and returns it; ok is false, and nothing is wrong, if
// a held nothing. The addresses rest: they are the last to be given out again.
func (s *Store) Release(ctx context.Context, a Attachment) (lease Lease, ok bool, err error) {
	err = s.update(ctx, func(st *state) (bool, error) {
		lease, ok = st.remove(a)
		return ok, nil
	})
	if err != nil {
		return Lease{}, false, fmt.Errorf("release lease of %s: %w", a, err)
	}
	return lease, ok, nil
}

// Find returns the lease of a, or ok false if it has none.
func (s *Store) Find(a Attachment) (lease Lease, ok bool, err error) {
	st, err := readState(s.Path())
	if err != nil {
		return Lease{}, false, fmt.Errorf("find lease of %s: %w", a, err)
	}
	lease, ok = st.find(a)
	return lease, ok, nil
}

// List returns every lease, the oldest first, as they stood at one moment. It waits
// for no lock.
func (s *Store) List() ([]Lease, error) {
	st, err := readState(s.Path())
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	return st.Leases, nil
}

// Available returns an error that wraps ErrExhausted if a new attachment could get no
// lease now. It changes nothing and waits for no lock.
func (s *Store) Available(ranges []netip.Prefix, reserved []netip.Addr) error {
	sp, err := newSpace(ranges, reserved)
	if err != nil {
		return err
	}
	st, err := readState(s.Path())
	if err != nil {
		return err
	}
	_, err = st.allocate(Attachment{}, sp)
	return err
}

// update runs change on the current state under the network's lock, and writes the
// state back if change reports that it altered it and returns no error.
func (s *Store) update(ctx context.Context, change func(*state) (bool, error)) error {
	unlock, err := s.lock(ctx, s.network+".lock", 0)
	if err != nil {
		return err
	}
	defer unlock()

	st, err := readState(s.Path())
	if err != nil {
		return err
	}
	altered, err := change(st)
	if err != nil || !altered {
		return err
	}
	return writeState(s.Path(), st)
}
