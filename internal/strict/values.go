package strict

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
)

// ParsePrefix parses an IP prefix that passes CheckPrefix.
func ParsePrefix(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
			return netip.Prefix{}, fmt.Errorf("%s has no prefix length; write it like %s/%d", text, a, a.BitLen()*3/4)
		}
		return netip.Prefix{}, fmt.Errorf("%s is not an IP prefix; write it like 10.244.0.0/16 or fd00:244::/48", Quote(text))
	}
	return p, CheckPrefix(p)
}

// CheckPrefix refuses a prefix that has host bits or is IPv4-mapped (RFC 4291
// section 2.5.5.2): either would match other addresses than its writer meant.
func CheckPrefix(p netip.Prefix) error {
	const mappedBits = 96
	switch {
	case !p.IsValid():
		return errors.New("the prefix is invalid; write it like 10.244.0.0/16 or fd00:244::/48")
	case p.Addr().Is4In6() && p.Bits() >= mappedBits:
		return fmt.Errorf("%s is IPv4-mapped; write %s", p, netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mappedBits).Masked())
	case p != p.Masked():
		return fmt.Errorf("%s has bits set behind its length; write %s", p, p.Masked())
	}
	return nil
}

// Within reports whether p lies in one of the CIDRs.
func Within(p netip.Prefix, cidrs []netip.Prefix) bool {
	return slices.ContainsFunc(cidrs, func(c netip.Prefix) bool { return c.Bits() <= p.Bits() && c.Contains(p.Addr()) })
}

// ParseAddrPort parses an IP address and UDP or TCP port that pass CheckAddrPort.
func ParseAddrPort(text string) (netip.AddrPort, error) {
	ap, err := netip.ParseAddrPort(text)
	if err != nil {
		if a, err := netip.ParseAddr(text); err == nil {
			return netip.AddrPort{}, fmt.Errorf("%s has no port; write it like %s", text, netip.AddrPortFrom(a, 9338))
		}
		return netip.AddrPort{}, fmt.Errorf("%s is not an IP address and port; write it like 192.168.77.1:9338 or [fd00:77::1]:9338", Quote(text))
	}
	return ap, CheckAddrPort(ap)
}

// CheckAddrPort refuses port 0, zones (they differ between nodes) and IPv4-mapped
// addresses (an address must have one spelling to be looked up).
func CheckAddrPort(ap netip.AddrPort) error {
	a := ap.Addr()
	switch {
	case !ap.IsValid():
		return errors.New("the address is missing; write it like 192.168.77.1:9338 or [fd00:77::1]:9338")
	case a.Zone() != "":
		return fmt.Errorf("%s has a zone; use an address that needs none", Quote(ap.String()))
	case a.Is4In6():
		return fmt.Errorf("%s is IPv4-mapped; write %s", ap, netip.AddrPortFrom(a.Unmap(), ap.Port()))
	case ap.Port() == 0:
		return fmt.Errorf("%s has port 0; write a port from 1 to 65535", ap)
	}
	return nil
}

// subdomain is RFC 1123's, as Kubernetes narrows it for the names of nodes.
var subdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// CheckNodeName refuses what Kubernetes refuses as a node's name. A name that
// passes is safe in a file name and in a message.
func CheckNodeName(name string) error {
	const maxLen = 253
	switch {
	case name == "":
		return errors.New("the node has no name; give it the one that its weftd runs under")
	case len(name) > maxLen:
		return fmt.Errorf("the name has %d characters; shorten it to at most %d", len(name), maxLen)
	case !subdomain.MatchString(name):
		return fmt.Errorf("%s is not a valid node name; use lower-case letters, digits, '-' and '.', with a letter or digit at both ends of every part", Quote(name))
	}
	return nil
}
