package control

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"weft/encap"
	"weft/internal/strict"
)

func checkSelf(state State, opts Options, problems *strict.Problems) {
	if slices.ContainsFunc(state.Nodes, func(n Node) bool { return n.Name == opts.Node }) {
		return
	}
	const told = 5
	var names []string
	for _, n := range state.Nodes[:min(len(state.Nodes), told)] {
		names = append(names, strict.Quote(n.Name))
	}
	if more := len(state.Nodes) - told; more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	list := "which is empty"
	if len(names) > 0 {
		list = "which has " + strings.Join(names, ", ")
	}
	problems.Addf(state.Origin, "", "this node, %s, is not in the list of nodes, %s; add it, or name this node differently under the configuration's key node",
		strict.Quote(opts.Node), list)
}

// checkNodes makes a problem of everything that would let two nodes claim the same
// or that the data path could not carry out.
func checkNodes(state State, clusterCIDRs []netip.Prefix, problems *strict.Problems) {
	for _, n := range state.Nodes {
		for _, err := range []error{strict.CheckNodeName(n.Name), checkEndpoint(n.Endpoint, clusterCIDRs), checkMAC(n.VTEPMAC)} {
			if err != nil {
				problems.Add(n.Origin, label(n), err)
			}
		}
		if len(n.PodCIDRs) == 0 {
			problems.Addf(n.Origin, label(n), "has no pod CIDRs; give it one out of the cluster CIDRs")
		}
	}
	checkUnique(state.Nodes, problems)
	checkPodCIDRs(state.Nodes, clusterCIDRs, problems)
}

// checkUnique makes a problem of every node that claims another one's name,
// endpoint address or VTEP MAC.
func checkUnique(nodes []Node, problems *strict.Problems) {
	names := make(map[string]Node, len(nodes))
	endpoints := make(map[netip.Addr]Node, len(nodes))
	macs := make(map[encap.MAC]Node, len(nodes))
	for _, n := range nodes {
		if other, taken := names[n.Name]; taken {
			problems.Addf(n.Origin, label(n), "the name is taken%s; rename or remove one of the two", at(other))
			continue // equal names derive equal VTEP MACs: that is no other mistake
		}
		names[n.Name] = n
		if other, taken := endpoints[n.Endpoint.Addr()]; taken && n.Endpoint.IsValid() {
			problems.Addf(n.Origin, label(n), "the endpoint address %s is taken by node %s%s; give each node its own", n.Endpoint.Addr(), label(other), at(other))
		}
		endpoints[n.Endpoint.Addr()] = n
		if other, taken := macs[vtepMAC(n)]; taken {
			problems.Addf(n.Origin, label(n), "the VTEP MAC %s is taken by node %s%s; give one of the two another", vtepMAC(n), label(other), at(other))
		}
		macs[vtepMAC(n)] = n
	}
}

// checkKeys makes a problem of every node that has no key of its own, or that can have none.
func checkKeys(state State, opts Options, problems *strict.Problems) {
	owners := make(map[encap.Fingerprint]Node, len(state.Nodes))
	for _, n := range state.Nodes {
		switch other, taken := owners[n.Key]; {
		case n.VTEPMAC != (encap.MAC{}):
			problems.Addf(n.Origin, label(n), "has a vtepMAC, so it is a kernel VXLAN device, which does not understand the encapsulation sealed; remove the node or its vtepMAC")
			continue
		case n.Key == (encap.Fingerprint{}):
			problems.Addf(n.Origin, label(n), "has no key, which the encapsulation sealed needs; run `weft keygen` there, and write the fingerprint that it prints under key")
		case n.Name == opts.Node && n.Key != opts.Key:
			problems.Addf(n.Origin, label(n), "this node's key is %s, not %s; write the first under key, or name the file of the other under the configuration's key keyFile", opts.Key, n.Key)
		case taken:
			problems.Addf(n.Origin, label(n), "the key is that of node %s%s; run `weft keygen` on one of the two", label(other), at(other))
		}
		owners[n.Key] = n
	}
}

// label is the node's name, fit for a message.
func label(n Node) string {
	if strict.CheckNodeName(n.Name) == nil {
		return n.Name
	}
	return strict.Quote(n.Name)
}

func at(n Node) string {
	if n.Origin == "" {
		return ""
	}
	return " (" + n.Origin + ")"
}

func checkEndpoint(ap netip.AddrPort, clusterCIDRs []netip.Prefix) error {
	if err := strict.CheckAddrPort(ap); err != nil {
		return fmt.Errorf("endpoint: %w", err)
	}
	a := ap.Addr()
	kind := ""
	switch {
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
		return fmt.Errorf("endpoint: %s is %s; write the address under which the other nodes reach this one", ap, kind)
	}
	for _, c := range clusterCIDRs {
		if c.Contains(a) {
			return fmt.Errorf("endpoint: %s is inside the cluster CIDR %s, so datagrams to it would be routed into the overlay itself; write an underlay address or move the cluster CIDR", ap, c)
		}
	}
	return nil
}

func checkPodCIDR(p netip.Prefix, clusterCIDRs []netip.Prefix) error {
	// A pod CIDR has at least 4 addresses: the network's, the node's own, a pod's, and
	// the last one, which in IPv4 is the broadcast address.
	const hostBits = 2
	if err := strict.CheckPrefix(p); err != nil {
		return fmt.Errorf("pod CIDR: %w", err)
	}
	if longest := p.Addr().BitLen() - hostBits; p.Bits() > longest {
		return fmt.Errorf("pod CIDR %s has no room for a pod; write a /%d or wider", p, longest)
	}
	for _, c := range clusterCIDRs {
		if c.Bits() <= p.Bits() && c.Contains(p.Addr()) {
			return nil
		}
	}
	return fmt.Errorf("pod CIDR %s is in none of the cluster CIDRs (%s); take it out of one of them, or add it to clusterCIDRs", p, joinPrefixes(clusterCIDRs))
}

func joinPrefixes(prefixes []netip.Prefix) string {
	var texts []string
	for _, p := range prefixes {
		texts = append(texts, p.String())
	}
	return strings.Join(texts, ", ")
}

func checkMAC(m encap.MAC) error {
	const group = 0x01 // IEEE 802: the first byte's lowest bit
	if m[0]&group != 0 {
		individual := m
		individual[0] = m[0]&^group | 0x02
		return fmt.Errorf("the VTEP MAC %s is multicast; write one whose first byte is even, such as %s", m, individual)
	}
	return nil
}

// claim is a pod CIDR of the node with the given index.
type claim struct {
	prefix netip.Prefix
	node   int
}

// checkPodCIDRs checks each pod CIDR, and that those which pass don't overlap: what
// is wrong with the others would only be told again.
func checkPodCIDRs(nodes []Node, clusterCIDRs []netip.Prefix, problems *strict.Problems) {
	var claims []claim
	for i, n := range nodes {
		for _, p := range n.PodCIDRs {
			if err := checkPodCIDR(p, clusterCIDRs); err != nil {
				problems.Add(n.Origin, label(n), err)
				continue
			}
			claims = append(claims, claim{p, i})
		}
	}
	checkOverlaps(nodes, claims, problems)
}

// checkOverlaps makes a problem of every claim that is part of another one.
// Sorted, a prefix stands before all that it contains, and prefixes never overlap
// in part: it is enough to compare each with the last one that none contains.
func checkOverlaps(nodes []Node, claims []claim, problems *strict.Problems) {
	slices.SortFunc(claims, func(a, b claim) int {
		return cmp.Or(a.prefix.Compare(b.prefix), cmp.Compare(a.node, b.node))
	})
	for i, outer := 1, 0; i < len(claims); i++ {
		o, c := claims[outer], claims[i]
		if !o.prefix.Overlaps(c.prefix) {
			outer = i
			continue
		}
		n, other := nodes[c.node], nodes[o.node]
		whose := fmt.Sprintf("%s of node %s%s", o.prefix, label(other), at(other))
		if c.node == o.node {
			whose = fmt.Sprintf("the node's own %s", o.prefix)
		}
		problems.Addf(n.Origin, label(n), "pod CIDR %s overlaps %s; give every node ranges of its own", c.prefix, whose)
	}
}
