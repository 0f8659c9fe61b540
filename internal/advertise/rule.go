package advertise

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"

	"weft/internal/strict"
)

// kind is which of its forms a Rule has.
type kind int

const (
	auto kind = iota
	literal
	ofInterface
	canReach
)

const (
	autoWord        = "auto"
	interfacePrefix = "interface="
	canReachPrefix  = "can-reach="
)

// Rule is how the address is chosen. Rules can be compared by ==; the zero Rule is auto.
type Rule struct {
	kind kind
	addr netip.Addr // of literal and canReach
	name string     // of ofInterface
}

// Parse reads the value of the key advertise:
//
//	auto               the source address of what leaves by the default route
//	ADDRESS            this address of the node, or of a NAT before it
//	interface=NAME     the address of this interface
//	can-reach=ADDRESS  the source address of what is sent to ADDRESS
//
// An address has no zone, and is one that other nodes could send to: neither
// unspecified, loopback, link-local nor multicast, nor IPv4-mapped.
func Parse(text string) (Rule, error) {
	if text == autoWord {
		return Rule{}, nil
	}
	if name, ok := strings.CutPrefix(text, interfacePrefix); ok {
		if err := checkLinkName(name); err != nil {
			return Rule{}, err
		}
		return Rule{kind: ofInterface, name: name}, nil
	}
	if target, ok := strings.CutPrefix(text, canReachPrefix); ok {
		addr, err := parseAddr(target)
		if err != nil {
			return Rule{}, fmt.Errorf("%s: %w", strings.TrimSuffix(canReachPrefix, "="), err)
		}
		return Rule{kind: canReach, addr: addr}, nil
	}
	if before, _, ok := strings.Cut(text, "="); ok {
		return Rule{}, fmt.Errorf("unknown rule %s: %s (%s)", strict.Quote(before+"="),
			strict.DidYouMean(before+"=", []string{interfacePrefix, canReachPrefix}), forms)
	}
	if !strings.ContainsAny(text, ".:") {
		return Rule{}, fmt.Errorf("%s is neither auto nor an IP address; %s", strict.Quote(text), forms)
	}
	addr, err := parseAddr(text)
	if err != nil {
		return Rule{}, err
	}
	return Rule{kind: literal, addr: addr}, nil
}

const forms = "write auto, an address, interface=NAME or can-reach=ADDRESS"

// parseAddr parses an address that other nodes could send to.
func parseAddr(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		if ap, err := netip.ParseAddrPort(text); err == nil {
			return netip.Addr{}, fmt.Errorf("%s has a port; write %s, the port is that of the key listen", strict.Quote(text), ap.Addr())
		}
		if p, err := netip.ParsePrefix(text); err == nil {
			return netip.Addr{}, fmt.Errorf("%s has a prefix length; write %s", text, p.Addr())
		}
		return netip.Addr{}, fmt.Errorf("%s is not an IP address, and names are not looked up; write an address like 192.168.77.1 or fd00:77::1", strict.Quote(text))
	}
	switch {
	case addr.Zone() != "":
		return netip.Addr{}, fmt.Errorf("%s has a zone; use an address that needs none", strict.Quote(text))
	case addr.Is4In6():
		return netip.Addr{}, fmt.Errorf("%s is IPv4-mapped; write %s", addr, addr.Unmap())
	}
	if why := unreachable(addr); why != "" {
		return netip.Addr{}, fmt.Errorf("%s is %s, to which other nodes can't send; write an address of the network between the nodes", addr, why)
	}
	return addr, nil
}

// unreachable says why no other node can send to addr, or nothing if one could.
func unreachable(addr netip.Addr) string {
	switch {
	case addr.IsUnspecified():
		return "unspecified"
	case addr.IsLoopback():
		return "loopback"
	case addr.IsLinkLocalUnicast():
		return "link-local"
	case addr.IsMulticast():
		return "multicast"
	case !addr.IsGlobalUnicast():
		return "broadcast"
	}
	return ""
}

// checkLinkName refuses what the kernel refuses (dev_valid_name in net/core/dev.c), and
// whatever would not be one readable word in a message.
func checkLinkName(name string) error {
	const most = 15 // IFNAMSIZ less the zero
	bad := func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) || r == '/' }
	switch label, _, ok := strings.Cut(name, ":"); {
	case name == "":
		return errors.New("the interface has no name; write it like interface=eth0")
	case ok:
		return fmt.Errorf("%s is the label of an address; write interface=%s, or the address itself", strict.Quote(name), label)
	case len(name) > most || name == "." || name == ".." || strings.ContainsFunc(name, bad):
		return fmt.Errorf("%s is not a valid interface name; write one that `ip link` lists, like interface=eth0", strict.Quote(name))
	}
	return nil
}

// String is the inverse of Parse.
func (r Rule) String() string {
	switch r.kind {
	case literal:
		return r.addr.String()
	case ofInterface:
		return interfacePrefix + r.name
	case canReach:
		return canReachPrefix + r.addr.String()
	}
	return autoWord
}
