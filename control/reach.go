package control

import (
	"fmt"
	"net/netip"
	"slices"

	"weft/internal/family"
	"weft/internal/warning"
	"weft/peer"
)

// Facts are what a node knows of itself beside the list of nodes.
type Facts struct {
	// Listen is where it receives datagrams; an unspecified address of IPv6 is both families'.
	Listen netip.AddrPort

	// Addresses are those of the host's interfaces; none if they are not known.
	Addresses []netip.Addr

	// Registered says that the node has written its own endpoint, or an administrator another
	// one on purpose.
	Registered bool
}

// Warnings returns what in a plan can't be as it was meant: an endpoint of this node at which
// nothing arrives, and peers to which nothing can be sent.
func Warnings(p *Plan, f Facts) []warning.Warning {
	var all []warning.Warning
	if w, wrong := checkReached(p.Self, f); wrong && !f.Registered {
		all = append(all, w)
	}
	if w, wrong := checkFamilies(p.Peers, f.Listen); wrong {
		all = append(all, w)
	}
	return all
}

// checkReached returns why datagrams to this node's endpoint don't arrive, unless a NAT
// translates them.
func checkReached(self *peer.Peer, f Facts) (warning.Warning, bool) {
	at, listen := self.Endpoint, f.Listen
	switch here := slices.Contains(f.Addresses, at.Addr()); {
	case len(f.Addresses) > 0 && !here:
		return warning.Warning{Code: "endpoint_address", Text: fmt.Sprintf(
			"the list of nodes has the endpoint %s for this node, but no interface of this host has that address; correct it, unless a NAT translates it to this node", at)}, true
	case here && at.Port() != listen.Port():
		return warning.Warning{Code: "endpoint_port", Text: fmt.Sprintf(
			"the list of nodes has the endpoint %s for this node, which listens on port %d; correct one of the two", at, listen.Port())}, true
	case here && !listen.Addr().IsUnspecified() && listen.Addr() != at.Addr():
		return warning.Warning{Code: "endpoint_address", Text: fmt.Sprintf(
			"the list of nodes has the endpoint %s for this node, which listens on %s alone; correct one of the two", at, listen.Addr())}, true
	case family.Of(listen.Addr()) != family.Of(at.Addr()) && listen.Addr() != netip.IPv6Unspecified():
		return warning.Warning{Code: "endpoint_address", Text: fmt.Sprintf(
			"the list of nodes has the endpoint %s for this node, which listens on %s; write listen: \"[::]:%d\" for both families", at, listen, listen.Port())}, true
	}
	return warning.Warning{}, false
}

// checkFamilies returns which peers have endpoints of a family in which this node has no socket.
func checkFamilies(peers []*peer.Peer, listen netip.AddrPort) (warning.Warning, bool) {
	if listen.Addr() == netip.IPv6Unspecified() {
		return warning.Warning{}, false
	}
	var names []string
	var theirs family.Family
	for _, p := range peers {
		if f := family.Of(p.Endpoint.Addr()); f != family.Of(listen.Addr()) {
			names, theirs = append(names, p.Name), f
		}
	}
	if len(names) == 0 {
		return warning.Warning{}, false
	}
	return warning.Warning{Code: "peer_family", Text: fmt.Sprintf(
		"this node can't send to %s: their endpoints are %s, and it listens on %s; write listen: \"[::]:%d\" for both families", Few(names), theirs, listen, listen.Port())}, true
}
