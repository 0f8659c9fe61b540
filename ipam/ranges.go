package ipam

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// pool is the addresses of one range that pods may have: first to last, inclusive.
type pool struct {
	prefix      netip.Prefix
	first, last netip.Addr
}

// newPool leaves out the addresses of a range that mean something else: the network
// and the broadcast address of IPv4, and the subnet-router anycast address of IPv6 (RFC
// 4291, 2.6.1). Ranges of one or two addresses have none of these (RFC 3021, RFC 6164).
func newPool(prefix netip.Prefix) (pool, error) {
	if !prefix.IsValid() || prefix.Addr().Is4In6() {
		return pool{}, fmt.Errorf("range %s is not a valid IPv4 or IPv6 prefix", prefix)
	}
	prefix = prefix.Masked()
	p := pool{prefix: prefix, first: prefix.Addr(), last: lastAddr(prefix)}
	if prefix.Addr().BitLen()-prefix.Bits() <= 1 {
		return p, nil
	}
	p.first = p.first.Next()
	if prefix.Addr().Is4() {
		p.last = p.last.Prev()
	}
	return p, nil
}

// lastAddr returns the address of prefix whose host bits are all ones.
func lastAddr(prefix netip.Prefix) netip.Addr {
	bytes := prefix.Addr().AsSlice()
	for bit := prefix.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	addr, _ := netip.AddrFromSlice(bytes)
	return addr
}

func (p pool) contains(addr netip.Addr) bool {
	return addr.Is4() == p.first.Is4() && !addr.Less(p.first) && !p.last.Less(addr)
}

// after returns the address behind addr, the first one behind the last.
func (p pool) after(addr netip.Addr) netip.Addr {
	if next := addr.Next(); p.contains(next) {
		return next
	}
	return p.first
}

// search returns the first address behind cursor that is not in skip. It takes at most
// one step more than skip has members, however large the range is.
func (p pool) search(cursor netip.Addr, skip map[netip.Addr]bool) (netip.Addr, bool) {
	start := p.after(cursor)
	for addr := start; ; {
		if !skip[addr] {
			return addr, true
		}
		if addr = p.after(addr); addr == start {
			return netip.Addr{}, false
		}
	}
}

// space is where a network's addresses come from.
type space struct {
	// families holds the pools of each address family, in the order of the ranges.
	families [][]pool
	reserved map[netip.Addr]bool
}

func newSpace(ranges []netip.Prefix, reserved []netip.Addr) (space, error) {
	var v4, v6 []pool
	for _, r := range ranges {
		p, err := newPool(r)
		if err != nil {
			return space{}, err
		}
		if r.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	sp := space{reserved: map[netip.Addr]bool{}}
	for _, pools := range [][]pool{v4, v6} {
		if len(pools) > 0 {
			sp.families = append(sp.families, pools)
		}
	}
	if len(sp.families) == 0 {
		return space{}, errors.New("the network has no address range")
	}
	for _, addr := range reserved {
		sp.reserved[addr.Unmap()] = true
	}
	return sp, nil
}

// fits reports whether addresses are exactly one usable address of each family.
func (sp space) fits(addresses []netip.Addr) bool {
	if len(addresses) != len(sp.families) {
		return false
	}
	for _, pools := range sp.families {
		if !slices.ContainsFunc(addresses, func(addr netip.Addr) bool {
			return anyContains(pools, addr) && !sp.reserved[addr]
		}) {
			return false
		}
	}
	return true
}

func anyContains(pools []pool, addr netip.Addr) bool {
	return slices.ContainsFunc(pools, func(p pool) bool { return p.contains(addr) })
}

// allocate adds a lease for a, with one address of each family.
func (st *state) allocate(a Attachment, sp space) (Lease, error) {
	taken := maps.Clone(sp.reserved)
	for _, l := range st.Leases {
		for _, addr := range l.Addresses {
			taken[addr] = true
		}
	}
	lease := Lease{Attachment: a}
	for _, pools := range sp.families {
		addr, err := st.pick(pools, taken)
		if err != nil {
			return Lease{}, err
		}
		lease.Addresses = append(lease.Addresses, addr)
	}
	st.Leases = append(st.Leases, lease)
	return lease, nil
}

// pick takes an address that nobody has had for long: the next one behind the cursor
// that is neither taken nor resting, or else the one that rested longest.
func (st *state) pick(pools []pool, taken map[netip.Addr]bool) (netip.Addr, error) {
	skip := maps.Clone(taken)
	for _, addr := range st.Resting {
		skip[addr] = true
	}
	for _, p := range pools {
		if addr, ok := p.search(st.Cursors[p.prefix], skip); ok {
			st.Cursors[p.prefix] = addr
			return addr, nil
		}
	}
	for i, addr := range st.Resting {
		if anyContains(pools, addr) && !taken[addr] {
			st.Resting = slices.Delete(st.Resting, i, i+1)
			return addr, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%w in %s", ErrExhausted, describe(pools))
}

// describe lists the ranges for a message.
func describe(pools []pool) string {
	var texts []string
	for _, p := range pools {
		texts = append(texts, p.prefix.String())
	}
	return strings.Join(texts, ", ")
}
