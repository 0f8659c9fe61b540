package advertise

import (
	"fmt"
	"net/netip"
)

// Family is an IP version.
type Family int

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

func (f Family) String() string { return fmt.Sprintf("IPv%d", int(f)) }

// FamilyOf returns an address' family.
func FamilyOf(addr netip.Addr) Family {
	if addr.Is4() {
		return IPv4
	}
	return IPv6
}

// Families returns those in which a node that listens on an address can be reached, the
// preferred one first. [::] is both.
func Families(listen netip.Addr) []Family {
	if listen.Is4() {
		return []Family{IPv4}
	}
	return []Family{IPv4, IPv6}
}
