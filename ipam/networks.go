package ipam

import (
	"context"
	"iter"
)

// addressesFile is the lock of those who take addresses, in any network of the state directory. It
// is locked before a network's own.
const addressesFile = "addresses"

// take is update for a change that takes addresses: it also knows what the other networks
// have.
func (s *Store) take(ctx context.Context, change func(*state, moment) (bool, error)) error {
	unlock, err := s.lock(ctx, addressesFile, 0)
	if err != nil {
		return err
	}
	defer unlock()
	return s.update(ctx, func(st *state, at moment) (_ bool, err error) {
		if st.others, err = s.readOthers(); err != nil {
			return false, err
		}
		return change(st, at)
	})
}

// readAll returns the network's state, which knows the other networks'.
func (s *Store) readAll() (*state, error) {
	st, err := readState(s.Path())
	if err == nil {
		st.others, err = s.readOthers()
	}
	return st, err
}

// readOthers returns the states of the state directory's other networks.
func (s *Store) readOthers() (others []*state, err error) {
	stores, err := OpenAll(s.stateDir)
	if err != nil {
		return nil, err
	}
	for _, other := range stores {
		if other.network == s.network {
			continue
		}
		st, err := readState(other.Path())
		if err != nil {
			return nil, err
		}
		others = append(others, st)
	}
	return others, nil
}

// leased iterates over the leases of all networks.
func (st *state) leased() iter.Seq[Lease] {
	return func(yield func(Lease) bool) {
		for _, network := range append([]*state{st}, st.others...) {
			for _, l := range network.Leases {
				if !yield(l) {
					return
				}
			}
		}
	}
}
