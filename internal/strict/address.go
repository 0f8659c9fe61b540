package strict

import (
	"fmt"
	"net/netip"
)

// MaxNodeAddresses is how many further addresses a node may have beside its endpoint's. Other
// nodes dial each of them from time to time.
const MaxNodeAddresses = 6

// CheckNodeAddresses returns why these can't be a node's further addresses, or nil.
func CheckNodeAddresses(all []netip.Addr, clusterCIDRs []netip.Prefix) error {
	if len(all) > MaxNodeAddresses {
		return fmt.Errorf("%d are more than %d; remove those that pods don't need", len(all), MaxNodeAddresses)
	}
	for _, a := range all {
		if err := CheckNodeAddress(a, clusterCIDRs); err != nil {
			return err
		}
	}
	return nil
}

// CheckNodeAddress returns why an underlay address can't be a node's, or nil.
func CheckNodeAddress(a netip.Addr, clusterCIDRs []netip.Prefix) error {
	kind := ""
	switch {
	case !a.IsValid() || a.Zone() != "" || a.Is4In6():
		kind = "no address of an underlay"
	case a.IsUnspecified():
		kind = "unspecified"
	case a.IsLoopback():
		kind = "loopback"
	case a.IsMulticast(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		kind = "multicast or broadcast"
	case a.Is6() && a.IsLinkLocalUnicast():
		kind = "link-local"
	}
	if kind != "" {
		return fmt.Errorf("%s is %s; write the address under which the other nodes reach this one", a, kind)
	}
	for _, c := range clusterCIDRs {
		if c.Contains(a) {
			return fmt.Errorf("%s is inside the cluster CIDR %s, so datagrams to it would be routed into the overlay itself; write an underlay address or move the cluster CIDR", a, c)
		}
	}
	return nil
}
