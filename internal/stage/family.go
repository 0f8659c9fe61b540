package stage

import (
	"fmt"
	"net/netip"
)

// Family is the version of IP.
type Family int

const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Families are both, in the order in which demos show them.
var Families = []Family{IPv4, IPv6}

func (f Family) String() string { return fmt.Sprintf("IPv%d", int(f)) }

// Of returns the first address of the family, or the zero Addr.
func (f Family) Of(addrs []netip.Addr) netip.Addr {
	for _, a := range addrs {
		if a.Is4() == (f == IPv4) {
			return a
		}
	}
	return netip.Addr{}
}
