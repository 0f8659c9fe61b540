package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go4.org/netipx"
)

// Pool says which addresses a network has, and how they are given out.
type Pool struct {
	// Ranges are the network's addresses. A lease has one address of each family that they
	// are of, IPv4 first, out of the first range that has one free.
	Ranges []netip.Prefix

	// Reserved are never given out. Those that are in no range do no harm.
	Reserved []netip.Prefix

	// Cooldown is how long an address stays unused after its release while others are free, so
	// that what other nodes remember of the last pod (connection tracking, caches) does not
	// meet the next one. Where none is free, the one that was released longest ago is given
	// out. An address that is asked for by name need not have cooled down.
	Cooldown time.Duration
}

// span is the addresses that a range gives out: first to last, inclusive.
type span struct{ first, last netip.Addr }

// newSpan leaves out the addresses of a subnet that mean something else: the network
// and the broadcast address of IPv4, and the subnet-router anycast address of IPv6 (RFC
// 4291, 2.6.1). Subnets of one or two addresses have none of these (RFC 3021, RFC 6164).
func newSpan(subnet netip.Prefix) (span, error) {
	if !subnet.IsValid() || subnet.Addr().Is4In6() {
		return span{}, fmt.Errorf("range %s is not a valid IPv4 or IPv6 prefix", subnet)
	}
	subnet = subnet.Masked()
	s := span{subnet.Addr(), netipx.PrefixLastIP(subnet)}
	if subnet.Addr().BitLen()-subnet.Bits() > 1 {
		s.first = s.first.Next()
		if subnet.Addr().Is4() {
			s.last = s.last.Prev()
		}
	}
	return s, nil
}

func (s span) contains(addr netip.Addr) bool {
	return addr.Is4() == s.first.Is4() && !addr.Less(s.first) && !s.last.Less(addr)
}

// after returns the address behind addr, the first one behind the last.
func (s span) after(addr netip.Addr) netip.Addr {
	if next := addr.Next(); s.contains(next) {
		return next
	}
	return s.first
}

// search returns the first free address behind cursor, which is in no reserved prefix.
// It takes about as many steps as there are taken addresses and reserved prefixes,
// however large the range is.
func (s span) search(cursor netip.Addr, taken map[netip.Addr]bool, reserved []netip.Prefix) (netip.Addr, bool) {
	start := s.after(cursor)
	around := start == s.first
	for addr := start; ; {
		skipTo := addr
		if i := slices.IndexFunc(reserved, func(p netip.Prefix) bool { return p.Contains(addr) }); i >= 0 {
			skipTo = netipx.PrefixLastIP(reserved[i])
		} else if !taken[addr] {
			return addr, true
		}
		if addr = skipTo.Next(); !s.contains(addr) {
			if around {
				return netip.Addr{}, false
			}
			addr, around = s.first, true
		}
		if around && start != s.first && !addr.Less(start) {
			return netip.Addr{}, false
		}
	}
}

// familyRanges is the ranges of IPv4 or of IPv6. A lease has one address of each.
type familyRanges struct {
	ranges []netip.Prefix // masked
	spans  []span
}

func (f familyRanges) contains(addr netip.Addr) bool {
	return slices.ContainsFunc(f.spans, func(s span) bool { return s.contains(addr) })
}

// String lists the ranges for a message.
func (f familyRanges) String() string {
	var texts []string
	for _, r := range f.ranges {
		texts = append(texts, r.String())
	}
	return strings.Join(texts, ", ")
}

func (p Pool) families() ([]familyRanges, error) {
	var v4, v6 familyRanges
	for _, r := range p.Ranges {
		span, err := newSpan(r)
		if err != nil {
			return nil, err
		}
		of := &v6
		if r.Addr().Is4() {
			of = &v4
		}
		of.ranges, of.spans = append(of.ranges, r.Masked()), append(of.spans, span)
	}
	families := slices.DeleteFunc([]familyRanges{v4, v6}, func(f familyRanges) bool { return len(f.ranges) == 0 })
	if len(families) == 0 {
		return nil, errors.New("the network has no address range")
	}
	return families, nil
}

func (p Pool) reserves(addr netip.Addr) bool {
	return slices.ContainsFunc(p.Reserved, func(r netip.Prefix) bool { return r.Contains(addr) })
}

// fits reports whether addresses are exactly one usable address of each family, those asked
// for among them.
func (p Pool) fits(families []familyRanges, addresses, wanted []netip.Addr) bool {
	if len(addresses) != len(families) {
		return false
	}
	for i, f := range families {
		if !f.contains(addresses[i]) || p.reserves(addresses[i]) {
			return false
		}
	}
	return !slices.ContainsFunc(wanted, func(w netip.Addr) bool { return !slices.Contains(addresses, w) })
}

// allocate adds a lease for wanted, with one address of each family: the one asked for, or
// one that is free.
func (st *state) allocate(wanted Lease, pool Pool, families []familyRanges, at moment) (Lease, error) {
	st.endCooldowns(at, pool.Cooldown)
	cooling := st.cooling(at, pool.Cooldown)
	taken := map[netip.Addr]bool{}
	for l := range st.leased() {
		for _, addr := range l.Addresses {
			taken[addr] = true
		}
	}
	for _, r := range cooling {
		taken[r.Address] = true
	}
	lease := wanted
	lease.Addresses = nil
	asked := slices.Clone(wanted.Addresses)
	for _, f := range families {
		i := slices.IndexFunc(asked, f.contains)
		if i < 0 {
			addr, err := st.pick(f, pool, taken, cooling)
			if err != nil {
				return Lease{}, err
			}
			lease.Addresses = append(lease.Addresses, addr)
			continue
		}
		if pool.reserves(asked[i]) {
			return Lease{}, fmt.Errorf("%w: %s is reserved", ErrRefused, asked[i])
		}
		lease.Addresses = append(lease.Addresses, asked[i])
		asked = slices.Delete(asked, i, i+1)
	}
	if len(asked) > 0 {
		return Lease{}, fmt.Errorf("%w: %s is in no range from which an address is still needed", ErrRefused, asked[0])
	}
	lease.Early = slices.ContainsFunc(cooling, func(r coolingAddr) bool { return slices.Contains(lease.Addresses, r.Address) })
	return lease, st.put(lease)
}

// pick takes the next address of a family behind the last one that was given out, so that
// all others come before it is that one's turn again. If none is free, it takes the first of
// those that cool down.
func (st *state) pick(f familyRanges, pool Pool, taken map[netip.Addr]bool, cooling []coolingAddr) (netip.Addr, error) {
	for i, span := range f.spans {
		key := f.ranges[i]
		if addr, ok := span.search(st.Cursors[key], taken, pool.Reserved); ok {
			st.Cursors[key] = addr
			return addr, nil
		}
	}
	for _, r := range cooling {
		if f.contains(r.Address) && !pool.reserves(r.Address) {
			return r.Address, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%w in %s", ErrExhausted, f)
}
