package ipam

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"slices"

	"go4.org/netipx"

	"weft/internal/family"
)

// Usage is how the addresses of a node are used at one moment, by all networks.
type Usage struct {
	Leases      int
	CoolingDown int // addresses, of any family and any former pool

	// Pools are the addresses that new pods can get, for each family of the pool: IPv4 first.
	Pools []PoolUsage
}

// PoolUsage is how the addresses of one family are used.
type PoolUsage struct {
	Family family.Family `json:"family"`

	// Size is how many addresses pods can have. math.MaxUint64 stands for that many or more.
	Size uint64 `json:"size"`

	Leased      uint64 `json:"leased"`
	CoolingDown uint64 `json:"coolingDown"` // pods get these when no other is free
}

// Free returns how many addresses neither are leased nor cool down.
func (u PoolUsage) Free() uint64 { return u.Size - u.Leased - u.CoolingDown }

// Usage returns how the node's addresses are used now, and those of pool, which may be without
// ranges. It waits for no lock.
func (s *Store) Usage(pool Pool) (u Usage, err error) {
	st, err := s.readAll()
	if err != nil {
		return u, fmt.Errorf("count leases: %w", err)
	}
	at, err := s.now()
	if err != nil {
		return u, err
	}
	cooling := st.cooling(at, pool.Cooldown)
	leases := slices.Collect(st.leased())
	u.Leases, u.CoolingDown = len(leases), len(cooling)
	for _, f := range family.All {
		ranges := f.Prefixes(pool.Ranges)
		if len(ranges) == 0 {
			continue
		}
		usable, err := pool.usable(ranges)
		if err != nil {
			return u, err
		}
		of := PoolUsage{Family: f, Size: size(usable)}
		for _, l := range leases {
			of.Leased += count(usable, l.Addresses...)
		}
		for _, r := range cooling {
			of.CoolingDown += count(usable, r.Address)
		}
		u.Pools = append(u.Pools, of)
	}
	return u, nil
}

// usable returns the addresses of the ranges that pods can get.
func (p Pool) usable(ranges []netip.Prefix) (*netipx.IPSet, error) {
	var set netipx.IPSetBuilder
	for _, r := range ranges {
		s, err := newSpan(r)
		if err != nil {
			return nil, err
		}
		set.AddRange(netipx.IPRangeFrom(s.first, s.last))
	}
	for _, r := range p.Reserved {
		set.RemovePrefix(r)
	}
	return set.IPSet()
}

// count returns how many of the addresses are in the set.
func count(set *netipx.IPSet, all ...netip.Addr) (n uint64) {
	for _, addr := range all {
		if set.Contains(addr) {
			n++
		}
	}
	return n
}

// size returns how many addresses a set has, at most math.MaxUint64.
func size(set *netipx.IPSet) (n uint64) {
	for _, r := range set.Ranges() {
		first, last := r.From().As16(), r.To().As16()
		low, borrow := bits.Sub64(binary.BigEndian.Uint64(last[8:]), binary.BigEndian.Uint64(first[8:]), 0)
		high, _ := bits.Sub64(binary.BigEndian.Uint64(last[:8]), binary.BigEndian.Uint64(first[:8]), borrow)
		sum, carry := bits.Add64(n, low, 1) // both ends are in the range
		if high > 0 || carry > 0 {
			return math.MaxUint64
		}
		n = sum
	}
	return n
}
