// Package family is IPv4 and IPv6, as everything that treats them alike needs them. It never
// unmaps an address: weft refuses IPv4-mapped ones where they are written.
package family

import (
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// Family is an address family, by its version of IP.
type Family int

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// All are both, in the order in which weft goes through them.
var All = [...]Family{IPv4, IPv6}

// LeastMTU6 is the smallest MTU in bytes that IPv6 works with (RFC 8200 §5).
const LeastMTU6 = 1280

// Of returns an address' family.
func Of(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Digit is 4 or 6, for names.
func (f Family) Digit() string { return strconv.Itoa(int(f)) }

func (f Family) String() string { return "IPv" + f.Digit() }

// AF is the number that the kernel has for the family (address_families(7)).
func (f Family) AF() int {
	if f == IPv4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// Unspecified returns 0.0.0.0 or ::.
func (f Family) Unspecified() netip.Addr {
	if f == IPv4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// First returns the first address of the family; the zero Addr if there is none.
func (f Family) First(all []netip.Addr) netip.Addr {
	for _, a := range all {
		if Of(a) == f {
			return a
		}
	}
	return netip.Addr{}
}

// Prefixes returns the prefixes of the family.
func (f Family) Prefixes(all []netip.Prefix) (of []netip.Prefix) {
	for _, p := range all {
		if Of(p.Addr()) == f {
			of = append(of, p)
		}
	}
	return of
}
