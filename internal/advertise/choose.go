package advertise

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"weft/internal/family"
	"weft/internal/marks"
	"weft/internal/strict"
)

// Choose returns the address by which other nodes reach this one, in the network namespace
// of the calling thread.
//
// The families are those in which the node can be reached at all, the preferred one first:
// a later one counts only if there is no address of the earlier ones. Exclude holds ranges
// that are not the underlay's, such as the cluster CIDRs. Own are names of weft's devices;
// what has marks.PodLinkGroup is weft's in any case.
//
// No rule ever chooses an excluded address, one on a device of weft's, one that other nodes
// can't send to (loopback, link-local), or one that the kernel does not use yet or any more
// (tentative, failed duplicate address detection). Beyond that:
//
//   - auto never chooses an address that is temporary (RFC 8981), deprecated (RFC 4862
//     section 5.5.4). Where there is a default route, and not into a tunnel, the kernel's
//     source for it decides, or another address of the same interface if that is not fit.
//     Otherwise the address must be the only one left, apart from secondary addresses,
//     tunnels, and what usually is pods' or virtual machines': dummy devices, the loopback
//     device, and bridges, Open vSwitch's devices and veths as long as no default route of
//     the other family leads through them.
//   - interface=NAME takes the first address that is not temporary, deprecated or secondary.
//   - can-reach=ADDRESS takes the source of the route to it; if ADDRESS is this node's own,
//     the first of that interface in its subnet, so that an address that wanders between
//     nodes is not taken for the node's.
//   - ADDRESS may be temporary, deprecated or secondary: it was asked for. If no interface
//     has it, or is in its subnet, it is taken for a NAT's.
//
// Any error says what to write instead. It may be over as soon as Watch reports a change.
func (r Rule) Choose(families []family.Family, exclude []netip.Prefix, own []string) (netip.Addr, error) {
	n, closeNode, err := readNode()
	if err != nil {
		return netip.Addr{}, err
	}
	defer closeNode()
	return choice{n, exclude, own}.make(r, families)
}

// choice is a node with what the caller of Choose wants left out.
type choice struct {
	*node
	exclude []netip.Prefix
	own     []string
}

func (c choice) make(r Rule, families []family.Family) (netip.Addr, error) {
	if len(families) == 0 {
		return netip.Addr{}, errors.New("choose the node's address: no family is wanted")
	}
	addr, err := c.byRule(r, families)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("advertise %s: %w", r, err)
	}
	return addr, nil
}

func (c choice) byRule(r Rule, families []family.Family) (netip.Addr, error) {
	if r.addr.IsValid() && !slices.Contains(families, family.Of(r.addr)) {
		return netip.Addr{}, fmt.Errorf("this node is not reached over %s; write an address of %s, or change the key listen", family.Of(r.addr), oneOf(families))
	}
	switch r.kind {
	case literal:
		return c.literal(r.addr)
	case ofInterface:
		return c.ofInterface(r.name, families)
	case canReach:
		return c.canReach(r.addr)
	}
	return c.auto(families)
}

func (c choice) literal(addr netip.Addr) (netip.Addr, error) {
	why := c.nobodys(addr)
	if a, ok := c.holder(addr); ok {
		why = c.unusable(a)
	} else if i := slices.IndexFunc(c.addrs, func(a address) bool { return a.Contains(addr) }); i >= 0 && why == "" {
		why = fmt.Sprintf("is in a subnet of %s, which does not have it", c.links[c.addrs[i].link].name)
	}
	if why != "" {
		return netip.Addr{}, fmt.Errorf("it %s; write another of the node's: %s", why, c.list(c.addrs))
	}
	return addr, nil
}

func (c choice) ofInterface(name string, families []family.Family) (netip.Addr, error) {
	var names []string
	for _, l := range c.links {
		names = append(names, l.name)
	}
	if !slices.Contains(names, name) {
		slices.Sort(names)
		return netip.Addr{}, fmt.Errorf("there is no such interface: %s (there are %s)", strict.DidYouMean(name, names), strings.Join(names, ", "))
	}
	var reasons []string
	for _, f := range families {
		for _, a := range c.addrs {
			if c.links[a.link].name != name || family.Of(a.Addr()) != f {
				continue
			}
			if why := c.unfit(a); why != "" {
				reasons = append(reasons, fmt.Sprintf("%s %s", a.Addr(), why))
				continue
			}
			return a.Addr(), nil
		}
	}
	return netip.Addr{}, fmt.Errorf("it has no address of %s for that%s; write another interface, or an address", oneOf(families), inBrackets(reasons))
}

func (c choice) canReach(target netip.Addr) (netip.Addr, error) {
	to, err := c.routeTo(target)
	if errors.Is(err, errNoRoute) {
		return netip.Addr{}, fmt.Errorf("%w to it; write an address that this node has a route to, or another rule (%s)", err, forms)
	}
	if err != nil {
		return netip.Addr{}, err
	}
	if to.local {
		if a, ok := c.holder(target); ok {
			to.link, to.source = a.link, cmp.Or(c.firstAround(a), a.Addr())
		}
	}
	addr, why := c.sourceOf(to, family.Of(target))
	if !addr.IsValid() {
		return netip.Addr{}, fmt.Errorf("the route to it leads through %s, %s; write another rule (%s)", c.links[to.link].name, why, forms)
	}
	return addr, nil
}

// probes are addresses on the Internet, to which only the default route leads: those for
// documentation (RFC 5737, RFC 3849) and, as some networks refuse to route these, those of
// a.root-servers.net. The unspecified address would not do: in IPv4 it is the node itself.
var probes = map[family.Family][]netip.Addr{
	family.IPv4: {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.41.0.4")},
	family.IPv6: {netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:503:ba3e::2:30")},
}

func (c choice) auto(families []family.Family) (netip.Addr, error) {
	for _, f := range families {
		addr, leads, err := c.towardsDefault(f)
		if addr.IsValid() || err != nil {
			return addr, err
		}
		if leads { // An address elsewhere would be a guess, and wrong once this one is not tentative any more.
			continue
		}
		left := slices.DeleteFunc(slices.Clone(c.addrs), func(a address) bool {
			return family.Of(a.Addr()) != f || c.unlikely(a) != ""
		})
		switch len(left) {
		case 0:
			continue
		case 1:
			return left[0].Addr(), nil
		}
		return netip.Addr{}, fmt.Errorf("this node has several addresses of %s, and no default route to choose by: %s; write one of them, interface=NAME, or can-reach=ADDRESS with the address of another node",
			f, c.list(left))
	}
	var reasons []string
	for _, a := range c.addrs {
		if slices.Contains(families, family.Of(a.Addr())) && unreachable(a.Addr()) == "" {
			why := cmp.Or(c.unlikely(a), "is not where the default route leads")
			reasons = append(reasons, fmt.Sprintf("%s of %s %s", a.Addr(), c.links[a.link].name, why))
		}
	}
	return netip.Addr{}, fmt.Errorf("this node has no address of %s by which other nodes surely reach it%s; give it one, or write its address, interface=NAME or can-reach=ADDRESS",
		oneOf(families), inBrackets(reasons))
}

// towardsDefault returns the source of what leaves by the default route; it is invalid if
// there is none that others can send to. Leads says whether there is such a route, and not
// only into another overlay.
func (c choice) towardsDefault(f family.Family) (addr netip.Addr, leads bool, err error) {
	for _, probe := range probes[f] {
		to, err := c.routeTo(probe)
		if errors.Is(err, errNoRoute) {
			continue
		}
		if err != nil {
			return netip.Addr{}, false, err
		}
		if l := c.links[to.link]; tunnels[l.kind] || l.ofLoop || c.isOwn(to.link) {
			return netip.Addr{}, false, nil
		}
		addr, _ = c.sourceOf(to, f)
		return addr, true, nil
	}
	return netip.Addr{}, false, nil
}

// sourceOf returns the address that is fit and nearest to the route's source: itself, or
// one in its subnet, as that of a temporary address is, or the first of the interface. If
// there is none, it is invalid, and why is the reason.
func (c choice) sourceOf(to route, f family.Family) (addr netip.Addr, why string) {
	why = "which has no address of " + f.String()
	source, known := c.holder(to.source)
	if known && c.standsIn(source, to) {
		why = "whose own addresses are unsuitable"
	} else if known {
		if why = c.unfit(source); why == "" || why == secondary {
			return to.source, ""
		}
		why = fmt.Sprintf("whose %s %s", to.source, why)
		if addr := c.firstAround(source); addr.IsValid() {
			return addr, ""
		}
	}
	if c.isOwn(to.link) {
		return netip.Addr{}, why
	}
	for _, a := range c.addrs {
		if a.link == to.link && family.Of(a.Addr()) == f && c.unfit(a) == "" {
			return a.Addr(), ""
		}
	}
	return netip.Addr{}, why
}

// standsIn says whether the source is another interface's only because the route's own has
// no address that the kernel would use, as while duplicate address detection runs. In IPv6
// the kernel then takes any other (RFC 6724 section 5); that of a loopback or dummy device
// is meant to be taken.
func (c choice) standsIn(source address, to route) bool {
	holder := c.links[source.link]
	if source.Addr().Is4() || source.link == to.link || holder.ofLoop || holder.kind == "dummy" {
		return false
	}
	return slices.ContainsFunc(c.addrs, func(a address) bool {
		return a.link == to.link && a.Addr().Is6() && unreachable(a.Addr()) == ""
	})
}

// firstAround returns the first fit address of a's interface whose subnet a is in; invalid
// if there is none.
func (c choice) firstAround(a address) netip.Addr {
	for _, other := range c.addrs {
		if other.link == a.link && !other.IsSingleIP() && other.Contains(a.Addr()) && c.unfit(other) == "" {
			return other.Addr()
		}
	}
	return netip.Addr{}
}

// holder returns addr as one of the node's.
func (c choice) holder(addr netip.Addr) (address, bool) {
	i := slices.IndexFunc(c.addrs, func(a address) bool { return a.Addr() == addr })
	if i < 0 {
		return address{}, false
	}
	return c.addrs[i], true
}

func (c choice) isOwn(index int) bool {
	l := c.links[index]
	return l.group == marks.PodLinkGroup || slices.Contains(c.own, l.name)
}

// unusable says why no rule may choose a, or nothing.
func (c choice) unusable(a address) string {
	if why := c.nobodys(a.Addr()); why != "" {
		return why
	}
	switch {
	case c.isOwn(a.link):
		return fmt.Sprintf("is on %s, which is weft's", c.links[a.link].name)
	case !c.links[a.link].up:
		return fmt.Sprintf("is on %s, which is down", c.links[a.link].name)
	case a.flags&unix.IFA_F_DADFAILED != 0:
		return "is another host's, too (its duplicate address detection failed)"
	case a.flags&unix.IFA_F_TENTATIVE != 0:
		return "is tentative"
	}
	return ""
}

// nobodys says why no node can be reached at addr, or nothing.
func (c choice) nobodys(addr netip.Addr) string {
	if why := unreachable(addr); why != "" {
		return "is " + why
	}
	for _, p := range c.exclude {
		if p.Contains(addr) {
			return fmt.Sprintf("is in %s, which is the pods'", p)
		}
	}
	return ""
}

// secondary is why an IPv4 address is refused that has another one in its subnet before it.
const secondary = "is secondary"

// unfit says why a must be asked for by itself, or nothing.
func (c choice) unfit(a address) string {
	switch why := c.unusable(a); {
	case why != "":
		return why
	case a.flags&unix.IFA_F_DEPRECATED != 0:
		return "is deprecated"
	case a.Addr().Is6() && a.flags&unix.IFA_F_TEMPORARY != 0:
		return "is temporary"
	case a.flags&unix.IFA_F_SECONDARY != 0: // in IPv6 the same bit as IFA_F_TEMPORARY
		return secondary
	}
	return ""
}

// tunnels are the kinds of interfaces whose addresses are those of another overlay.
var tunnels = map[string]bool{
	"wireguard": true, "tun": true, "ovpn": true, "vxlan": true, "geneve": true, "bareudp": true,
	"ipip": true, "sit": true, "ip6tnl": true, "vti": true, "vti6": true, "xfrm": true,
	"gre": true, "gretap": true, "ip6gre": true, "ip6gretap": true, "erspan": true, "ip6erspan": true,
}

// unlikely says why a is not taken for the address that others reach, or nothing.
func (c choice) unlikely(a address) string {
	l := c.links[a.link]
	switch why := c.unfit(a); {
	case why != "":
		return why
	case tunnels[l.kind]:
		return "is on a tunnel"
	case l.ofLoop:
		return "is on the loopback device"
	case l.kind == "dummy": // kube-ipvs0, and nodelocaldns
		return "is on a dummy device"
	case !l.uplink && (l.kind == "bridge" || l.kind == "openvswitch" || l.kind == "veth"):
		return "is on a bridge or veth without a default route"
	}
	return ""
}

// list names addresses with their interfaces, those that no rule may choose left out.
func (c choice) list(addrs []address) string {
	var names []string
	for _, a := range addrs {
		if c.unusable(a) == "" {
			names = append(names, fmt.Sprintf("%s (%s)", a.Addr(), c.links[a.link].name))
		}
	}
	if names == nil {
		return "none is suitable"
	}
	return strings.Join(names, ", ")
}

func inBrackets(reasons []string) string {
	if reasons == nil {
		return ""
	}
	return " (" + strings.Join(reasons, "; ") + ")"
}

// Families returns those in which a node that listens on an address can be reached, the
// preferred one first. [::] is both.
func Families(listen netip.Addr) []family.Family {
	if listen.Is4() {
		return []family.Family{family.IPv4}
	}
	return []family.Family{family.IPv4, family.IPv6}
}

// oneOf names families: "IPv4 or IPv6".
func oneOf(families []family.Family) string {
	var names []string
	for _, f := range families {
		names = append(names, f.String())
	}
	return strings.Join(names, " or ")
}
