package etcd

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"weft/internal/strict"
)

// standing are the claims that are right: CIDR → name of the node.
type standing struct{ bart.Table[string] }

// standing returns those claims that lie in the cluster CIDRs and overlap none that was
// written before.
func (l *listing) standing() *standing {
	if l.stands != nil {
		return l.stands
	}
	type owned struct {
		claim
		name string
	}
	var all []owned
	for _, claims := range l.claims {
		for name, c := range claims {
			if c.err == nil && strict.Within(c.cidr, l.options.ClusterCIDRs) {
				all = append(all, owned{c, name})
			}
		}
	}
	slices.SortFunc(all, func(a, b owned) int {
		return cmp.Or(cmp.Compare(a.revision, b.revision), cmp.Compare(a.name, b.name))
	})
	s := new(standing)
	for _, c := range all {
		if !s.OverlapsPrefix(c.cidr) {
			s.Insert(c.cidr, c.name)
		}
	}
	l.stands = s
	return s
}

// free returns a CIDR of the given length, out of the first of the cluster CIDRs that has
// room, that overlaps no standing claim. Where the search begins depends on the name, so
// that nodes which start together seldom choose the same.
func (s *standing) free(clusterCIDRs []netip.Prefix, length int, name string) (netip.Prefix, bool) {
	hash := fnv.New64a()
	hash.Write([]byte(name))
	for _, c := range clusterCIDRs {
		if c.Bits() > length {
			continue
		}
		r := newRange(c, length)
		first := hash.Sum64() % r.count
		if p, ok := s.freeIn(r, first, r.count); ok {
			return p, true
		}
		if p, ok := s.freeIn(r, 0, first); ok {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// freeIn returns the first free CIDR of those with the numbers from i to end. Each step
// leaves at least one claim behind.
func (s *standing) freeIn(r cidrRange, i, end uint64) (netip.Prefix, bool) {
	for i < end {
		p := r.cidr(i)
		wide, _, within := s.LookupPrefixLPM(p)
		switch {
		case within:
			i = r.after(wide)
		case s.OverlapsPrefix(p):
			i++
		default:
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// cidrRange is what a cluster CIDR is divided into: CIDRs of one length, by number.
type cidrRange struct {
	cluster netip.Prefix
	length  int
	count   uint64
}

// mostBits bounds the numbers. Of a range that has more CIDRs than that, only the first
// are given out.
const mostBits = 60

func newRange(cluster netip.Prefix, length int) cidrRange {
	return cidrRange{cluster, length, 1 << min(length-cluster.Bits(), mostBits)}
}

// cidr returns the CIDR with a number.
func (r cidrRange) cidr(i uint64) netip.Prefix {
	number, shift := numberOf(r.cluster.Addr()), r.cluster.Addr().BitLen()-r.length
	if shift < 64 {
		number.hi |= i >> (64 - shift)
		number.lo |= i << shift
	} else {
		number.hi |= i << (shift - 64)
	}
	return netip.PrefixFrom(number.addr(r.cluster.Addr().Is4()), r.length)
}

// after returns the number of the first CIDR behind one that contains CIDRs of the range.
func (r cidrRange) after(wide netip.Prefix) uint64 {
	if r.length-wide.Bits() >= mostBits {
		return r.count
	}
	number, shift := numberOf(wide.Addr()), wide.Addr().BitLen()-r.length
	i := number.hi >> max(shift-64, 0)
	if shift < 64 {
		i = number.hi<<(64-shift) | number.lo>>shift
	}
	return i&(r.count-1) + 1<<(r.length-wide.Bits())
}

// uint128 is an address as a number.
type uint128 struct{ hi, lo uint64 }

func numberOf(a netip.Addr) uint128 {
	if a.Is4() {
		b := a.As4()
		return uint128{0, uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return uint128{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (n uint128) addr(is4 bool) netip.Addr {
	var bytes [16]byte
	binary.BigEndian.PutUint64(bytes[:8], n.hi)
	binary.BigEndian.PutUint64(bytes[8:], n.lo)
	if is4 {
		return netip.AddrFrom4([4]byte(bytes[12:]))
	}
	return netip.AddrFrom16(bytes)
}
