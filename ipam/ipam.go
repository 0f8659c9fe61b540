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
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// LockTimeout bounds the wait for a lock when the caller's context sets no deadline.
const LockTimeout = 10 * time.Second

// maxNetworkName is the length in bytes of the longest network name: with every
// suffix that this package adds it still is a file name (NAME_MAX).
const maxNetworkName = 200

var (
	// ErrExhausted says that an address family has no address left.
	ErrExhausted = errors.New("no free address")

	// ErrRefused says that an address can't be had that was asked for by name.
	ErrRefused = errors.New("requested address refused")

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

// Lease is what an attachment holds.
type Lease struct {
	Attachment
	Addresses []netip.Addr `json:"addresses"`

	// Pod is NAMESPACE/NAME, where the runtime passes them.
	Pod string `json:"pod,omitempty"`

	// Veth is the host side of the pod's veth; where it is missing, no pod uses the
	// addresses any more. It is empty in leases that a former release gave to other plugins'
	// pods: those are unused when they are released.
	Veth string `json:"veth,omitempty"`

	// NetNS is the path of the pod's network namespace, as the runtime gave it.
	NetNS string `json:"netns,omitempty"`

	// Early says that one of the addresses still cooled down when it was leased.
	Early bool `json:"early,omitempty"`

	// Since is when the lease began, for people: the clock may have been wrong. It is zero
	// where that is not known.
	Since time.Time `json:"since,omitzero"`
}

// Store is the leases of one network. It holds nothing open between calls, and any
// number of processes may use their own Store of the same network at once.
type Store struct {
	stateDir string
	network  string
	now      func() (moment, error)
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
	return &Store{stateDir: stateDir, network: network, now: now}, nil
}

// OpenAll returns the leases of every network that has had one in stateDir.
func OpenAll(stateDir string) ([]*Store, error) {
	entries, err := os.ReadDir(dirIn(stateDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the networks with leases: %w", err)
	}
	var stores []*Store
	for _, e := range entries {
		if network, ok := strings.CutSuffix(e.Name(), extension); ok {
			s, err := Open(stateDir, network)
			if err != nil {
				return nil, err
			}
			stores = append(stores, s)
		}
	}
	return stores, nil
}

const extension = ".json"

// DirName is the name of the folder with leases, in the state directory.
const DirName = "ipam"

func dirIn(stateDir string) string { return filepath.Join(stateDir, DirName) }

// Network is the name of the network.
func (s *Store) Network() string { return s.network }

// Path returns the path of the lease file.
func (s *Store) Path() string { return filepath.Join(dirIn(s.stateDir), s.network+extension) }

// Acquire leases addresses out of pool, one of each family or none at all, and among them
// those that wanted names. What else wanted says is kept with the lease.
//
// An attachment that already has a lease gets the same one back, unless it does not fit
// the pool any more, or what is wanted: then it is replaced. The error wraps ErrExhausted,
// ErrRefused, ErrLocked or ErrCorrupt where that is the cause.
func (s *Store) Acquire(ctx context.Context, wanted Lease, pool Pool) (lease Lease, err error) {
	if wanted.ContainerID == "" || wanted.IfName == "" {
		return Lease{}, errors.New("acquire lease: the attachment is incomplete")
	}
	families, err := pool.families()
	if err != nil {
		return Lease{}, fmt.Errorf("acquire lease for %s: %w", wanted.Attachment, err)
	}
	err = s.take(ctx, func(st *state, at moment) (altered bool, err error) {
		if held := st.find(wanted.Attachment); held != nil {
			if pool.fits(families, held.Addresses, wanted.Addresses) {
				lease = *held
				return false, nil
			}
			st.remove(wanted.Attachment, at)
		}
		wanted.Since = time.Now().UTC().Truncate(time.Second)
		lease, err = st.allocate(wanted, pool, families, at)
		return true, err
	})
	if err != nil {
		return Lease{}, fmt.Errorf("acquire lease for %s: %w", wanted.Attachment, err)
	}
	return lease, nil
}

// Record keeps a lease of the addresses that a pod has. It replaces what the attachment held.
// The error wraps ErrRefused if another attachment holds one of the addresses.
func (s *Store) Record(ctx context.Context, lease Lease) error {
	err := s.take(ctx, func(st *state, at moment) (bool, error) {
		st.remove(lease.Attachment, at)
		return true, st.put(lease)
	})
	if err != nil {
		return fmt.Errorf("record lease of %s: %w", lease.Attachment, err)
	}
	return nil
}

// Release gives back what a holds and returns it; ok is false, and nothing is wrong, if
// a held nothing. From now on the addresses cool down.
func (s *Store) Release(ctx context.Context, a Attachment) (lease Lease, ok bool, err error) {
	return s.end(ctx, a, true)
}

// Cancel is Release for an attachment that was never complete: no other node knows of its
// addresses, so they are free at once, unless they still cooled down before.
func (s *Store) Cancel(ctx context.Context, a Attachment) (lease Lease, ok bool, err error) {
	return s.end(ctx, a, false)
}

func (s *Store) end(ctx context.Context, a Attachment, used bool) (lease Lease, ok bool, err error) {
	err = s.update(ctx, func(st *state, at moment) (bool, error) {
		if lease, ok = st.remove(a, at); ok && !used && !lease.Early {
			for _, addr := range lease.Addresses {
				st.endCooldown(addr)
			}
		}
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
	if held := st.find(a); held != nil {
		return *held, true, nil
	}
	return Lease{}, false, nil
}

// List returns every lease, the oldest first, and the addresses that cool down, or have cooled
// down since the last lease, as they stood at one moment. It waits for no lock.
func (s *Store) List() (leases []Lease, cooling []netip.Addr, err error) {
	st, err := readState(s.Path())
	if err != nil {
		return nil, nil, fmt.Errorf("list leases: %w", err)
	}
	for _, r := range st.CoolingDown {
		cooling = append(cooling, r.Address)
	}
	return st.Leases, cooling, nil
}

// Available returns why a new attachment could get no lease now, as Acquire would. It
// changes nothing and waits for no lock.
func (s *Store) Available(pool Pool) error {
	families, err := pool.families()
	if err != nil {
		return err
	}
	st, err := s.readAll()
	if err != nil {
		return err
	}
	at, err := s.now()
	if err != nil {
		return err
	}
	_, err = st.allocate(Lease{}, pool, families, at)
	return err
}

// Rebuild replaces a damaged lease file by one with the given leases, and keeps the old
// one at the path that it returns. It forgets cooldowns. A file that is not damaged
// is left alone, and the path is empty.
func (s *Store) Rebuild(ctx context.Context, leases []Lease) (damaged string, err error) {
	unlock, err := s.lock(ctx, s.network+".lock", 0)
	if err != nil {
		return "", fmt.Errorf("rebuild %s: %w", s.Path(), err)
	}
	defer unlock()
	if _, err := readState(s.Path()); !errors.Is(err, ErrCorrupt) {
		return "", err
	}
	st := newState()
	var errs []error
	for _, l := range leases {
		errs = append(errs, st.put(l))
	}
	if err := errors.Join(errs...); err != nil {
		return "", fmt.Errorf("rebuild %s: %w", s.Path(), err)
	}
	damaged = s.Path() + ".damaged"
	if err := keep(s.Path(), damaged); err != nil {
		return "", err
	}
	return damaged, writeState(s.Path(), st)
}

// keep has the file at path under another name as well.
func keep(path, name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Link(path, name)
}

// update runs change on the current state under the network's lock, and writes the
// state back if change reports that it altered it and returns no error.
func (s *Store) update(ctx context.Context, change func(*state, moment) (bool, error)) error {
	unlock, err := s.lock(ctx, s.network+".lock", 0)
	if err != nil {
		return err
	}
	defer unlock()

	st, err := readState(s.Path())
	if err != nil {
		return err
	}
	at, err := s.now()
	if err != nil {
		return err
	}
	altered, err := change(st, at)
	if err != nil || !altered {
		return err
	}
	return writeState(s.Path(), st)
}

// find returns the lease of a, or nil.
func (st *state) find(a Attachment) *Lease {
	if i := slices.IndexFunc(st.Leases, func(l Lease) bool { return l.Attachment == a }); i >= 0 {
		return &st.Leases[i]
	}
	return nil
}

// put adds a lease, unless another attachment holds one of its addresses.
func (st *state) put(lease Lease) error {
	for l := range st.leased() {
		for _, addr := range lease.Addresses {
			if slices.Contains(l.Addresses, addr) {
				return fmt.Errorf("%w: %s is held by %s", ErrRefused, addr, l.holder())
			}
		}
	}
	for _, addr := range lease.Addresses {
		st.endCooldown(addr)
	}
	st.Leases = append(st.Leases, lease)
	return nil
}

// remove ends the lease of a, and starts the cooldown of its addresses.
func (st *state) remove(a Attachment, at moment) (Lease, bool) {
	held := st.find(a)
	if held == nil {
		return Lease{}, false
	}
	lease := *held
	st.Leases = slices.DeleteFunc(st.Leases, func(l Lease) bool { return l.Attachment == a })
	st.startCooldown(lease.Addresses, at)
	return lease, true
}

// holder names the holder of a lease, for people.
func (l Lease) holder() string {
	if l.Pod == "" {
		return l.String()
	}
	return fmt.Sprintf("%s (pod %s)", l.Attachment, l.Pod)
}
