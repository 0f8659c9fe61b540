package control

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"
	"go4.org/netipx"

	"weft/internal/strict"
	"weft/peer"
)

func checkSelf(state State, opts Options, problems *strict.Problems) {
	if slices.ContainsFunc(state.Nodes, func(n Node) bool { return n.Name == opts.Node }) {
		return
	}
	const most = 5
	var names []string
	for _, n := range state.Nodes[:min(len(state.Nodes), most)] {
		names = append(names, strict.Quote(n.Name))
	}
	if more := len(state.Nodes) - most; more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	list := "which is empty"
	if len(names) > 0 {
		list = "which has " + strings.Join(names, ", ")
	}
	problems.Addf(state.Origin, "", "this node, %s, is not in the list of nodes, %s; add it, or set the configuration's key node to its name there",
		strict.Quote(opts.Node), list)
}

// checkOwnKey returns whether the list has another key for this node.
func checkOwnKey(n *Node, opts Options) error {
	if n.Name != opts.Node || opts.Key == (peer.Fingerprint{}) || n.Key == (peer.Fingerprint{}) || n.Key == opts.Key {
		return nil
	}
	return fmt.Errorf("this node's key is %s, not %s; write the first under key, or set the configuration's key keyFile to the file of the other", opts.Key, n.Key)
}

// admission is what the nodes admitted so far have claimed.
type admission struct {
	clusterCIDRs []netip.Prefix
	sealed       bool

	names     map[string]*Node
	endpoints map[netip.Addr]*Node
	macs      map[peer.MAC]*Node
	keys      map[peer.Fingerprint]*Node
	podCIDRs  bart.Table[*Node]
}

// Check returns for each node of a State why it can be no peer of the others, or nil. Sealed
// says that every node must have a key.
//
// Where only the node itself speaks for it, one that is refused claims nothing, so
// that it can keep no other one out. In a list that a person wrote, all that is wrong
// must be reported at once, and so everything claims.
func Check(state State, clusterCIDRs []netip.Prefix, sealed bool) []error {
	a := admission{
		clusterCIDRs: clusterCIDRs,
		sealed:       sealed,
		names:        make(map[string]*Node, len(state.Nodes)),
		endpoints:    make(map[netip.Addr]*Node, len(state.Nodes)),
		macs:         make(map[peer.MAC]*Node, len(state.Nodes)),
		keys:         make(map[peer.Fingerprint]*Node, len(state.Nodes)),
	}
	wrong := make([]error, len(state.Nodes))
	for i := range state.Nodes {
		n := &state.Nodes[i]
		wrong[i] = a.check(n)
		if wrong[i] == nil || !state.Registered {
			a.claim(n)
		}
	}
	return wrong
}

// check returns all that would let the node claim what another one has, or that the data
// path could not carry out.
func (a *admission) check(n *Node) error {
	wrong := []error{strict.CheckNodeName(n.Name), checkEndpoint(n.Endpoint, a.clusterCIDRs), checkMAC(n.VTEPMAC)}
	if err := strict.CheckNodeAddresses(n.Addresses, a.clusterCIDRs); err != nil {
		wrong = append(wrong, fmt.Errorf("addresses: %w", err))
	}
	if len(n.PodCIDRs) == 0 {
		wrong = append(wrong, errors.New("has no pod CIDRs; give it one within the cluster CIDRs"))
	}
	wrong = append(wrong, a.checkUnique(n)...)
	wrong = append(wrong, a.checkPodCIDRs(n)...)
	if a.sealed {
		wrong = append(wrong, a.checkKey(n))
	}
	return errors.Join(wrong...)
}

// claim gives the node what it says is its own.
func (a *admission) claim(n *Node) {
	if _, taken := a.names[n.Name]; !taken { // equal names derive equal VTEP MACs: that is no other mistake
		a.names[n.Name] = n
		a.endpoints[n.Endpoint.Addr()] = n
		a.macs[vtepMAC(n)] = n
	}
	a.keys[n.Key] = n
	for _, p := range n.PodCIDRs {
		if checkPodCIDR(p, a.clusterCIDRs) == nil {
			a.podCIDRs.Insert(p, n)
		}
	}
}

// checkUnique returns whether the node has another one's name, endpoint address or VTEP MAC.
func (a *admission) checkUnique(n *Node) (wrong []error) {
	if other, taken := a.names[n.Name]; taken {
		return []error{fmt.Errorf("the name is taken%s; rename or remove one of the two", at(other))}
	}
	if other, taken := a.endpoints[n.Endpoint.Addr()]; taken && n.Endpoint.IsValid() {
		wrong = append(wrong, fmt.Errorf("the endpoint address %s is taken by node %s%s; give each node its own", n.Endpoint.Addr(), label(other), at(other)))
	}
	if other, taken := a.macs[vtepMAC(n)]; taken {
		wrong = append(wrong, fmt.Errorf("the VTEP MAC %s is taken by node %s%s; give one of the two another", vtepMAC(n), label(other), at(other)))
	}
	return wrong
}

// checkKey returns whether the node has no key of its own, or can have none.
func (a *admission) checkKey(n *Node) error {
	switch other, taken := a.keys[n.Key]; {
	case n.VTEPMAC != (peer.MAC{}):
		return errors.New("has a vtepMAC, so it is a kernel VXLAN device, which does not understand the encapsulation sealed; remove the node or its vtepMAC")
	case n.Key == (peer.Fingerprint{}):
		return errors.New("has no key, which the encapsulation sealed needs; run `weft keygen` there, and write the fingerprint that it prints under key")
	case taken:
		return fmt.Errorf("the key is that of node %s%s; run `weft keygen` on one of the two", label(other), at(other))
	}
	return nil
}

// label is the node's name, fit for a message.
func label(n *Node) string {
	if strict.CheckNodeName(n.Name) == nil {
		return n.Name
	}
	return strict.Quote(n.Name)
}

func at(n *Node) string {
	if n.Origin == "" {
		return ""
	}
	return " (" + n.Origin + ")"
}

func checkEndpoint(ap netip.AddrPort, clusterCIDRs []netip.Prefix) error {
	if err := strict.CheckAddrPort(ap); err != nil {
		return fmt.Errorf("endpoint: %w", err)
	}
	if err := strict.CheckNodeAddress(ap.Addr(), clusterCIDRs); err != nil {
		return fmt.Errorf("endpoint: %w", err)
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
	if !strict.Within(p, clusterCIDRs) {
		return fmt.Errorf("pod CIDR %s is in none of the cluster CIDRs (%s); choose one within them, or add it to clusterCIDRs", p, Join(clusterCIDRs))
	}
	return nil
}

func checkMAC(m peer.MAC) error {
	const group = 0x01 // IEEE 802: the first byte's lowest bit
	if m[0]&group != 0 {
		individual := m
		individual[0] = m[0]&^group | 0x02
		return fmt.Errorf("the VTEP MAC %s is multicast; write one whose first byte is even, such as %s", m, individual)
	}
	return nil
}

// checkPodCIDRs checks each pod CIDR, and that those which pass overlap none.
func (a *admission) checkPodCIDRs(n *Node) (wrong []error) {
	own := make([]netip.Prefix, 0, len(n.PodCIDRs))
	for _, p := range n.PodCIDRs {
		if err := checkPodCIDR(p, a.clusterCIDRs); err != nil {
			wrong = append(wrong, err)
			continue
		}
		if i := slices.IndexFunc(own, p.Overlaps); i >= 0 {
			wrong = append(wrong, fmt.Errorf("pod CIDR %s overlaps the node's own %s; give every node ranges of its own", p, own[i]))
			continue
		}
		own = append(own, p)
		if with, other, overlaps := Overlapping(&a.podCIDRs, p); overlaps {
			wrong = append(wrong, fmt.Errorf("pod CIDR %s overlaps %s of node %s%s; give every node ranges of its own", p, with, label(other), at(other)))
		}
	}
	return wrong
}

// Overlapping returns the narrowest claim that contains p, or one inside p, and its owner.
func Overlapping[T any](claims *bart.Table[T], p netip.Prefix) (with netip.Prefix, owner T, ok bool) {
	if with, owner, ok = claims.LookupPrefixLPM(p); ok {
		return with, owner, true
	}
	for with, owner = range claims.Subnets(p) {
		return with, owner, true
	}
	return netip.Prefix{}, owner, false
}

// FreeFrom returns the first CIDR of a length, in the cluster CIDR and at first or behind it, that
// overlaps no claim. Each step leaves at least one claim behind.
func FreeFrom[T any](claims *bart.Table[T], first netip.Addr, cluster netip.Prefix, length int) (netip.Prefix, bool) {
	for cluster.Contains(first) {
		p := netip.PrefixFrom(first, length)
		if wide, _, within := claims.LookupPrefixLPM(p); within {
			p = wide
		} else if !claims.OverlapsPrefix(p) {
			return p, true
		}
		first = netipx.PrefixLastIP(p).Next()
	}
	return netip.Prefix{}, false
}
