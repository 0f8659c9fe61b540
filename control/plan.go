package control

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"weft/fib"
	"weft/internal/strict"
	"weft/peer"
)

// Options are what a node knows of itself and of the cluster by its configuration.
type Options struct {
	// Node is this node's name.
	Node string

	// ClusterCIDRs are the ranges of all pods' addresses: masked, not overlapping.
	ClusterCIDRs []netip.Prefix

	// Key is the fingerprint of this node's key. If it is not zero, every node must have one.
	Key peer.Fingerprint
}

// Plan is what a node must have: whom it forwards to, and which addresses and
// routes its host needs. Equal States make equal Plans, whatever the order of
// their nodes. A Plan and what it points to must not be changed. NewPlan has checked all
// that is in it, and nothing that acts on a Plan checks it again.
type Plan struct {
	// Self is this node; Peers are the others, sorted by name. Behind each are its
	// pod CIDRs, as they were written, and then its endpoint's address as a /32 or
	// /128: pods reach nodes, and nodes pods, through the overlay without NAT. Behind
	// Self are its further addresses too, and behind a peer those that WithAddresses adds.
	Self  *peer.Peer
	Peers []*peer.Peer

	// Table is made of Self and Peers.
	Table *fib.Table

	// NodeAddresses are this node's own overlay addresses, at most one for each
	// family: network address + 1 of the family's first pod CIDR. The TUN device
	// has them as /32 or /128; no pod may get them.
	NodeAddresses []netip.Addr

	// PodCIDRs are this node's own, as they were written.
	PodCIDRs []netip.Prefix

	// ClusterCIDRs are as in Options.
	ClusterCIDRs []netip.Prefix

	// PeerCIDRs are all peers' pod CIDRs, sorted: the host routes them to the TUN device.
	PeerCIDRs []netip.Prefix

	// PeerAddresses are all peers' addresses, those of the endpoints and the further ones
	// that are behind them, sorted: pods, and only pods, reach them through the TUN device.
	PeerAddresses []netip.Addr

	// Senders are the addresses that the peers' datagrams come from, sorted: their
	// endpoints', those that they have moved to, and the further ones that are behind them,
	// where what proves these again comes from.
	Senders []netip.Addr

	// PeerEndpoints are where the peers receive datagrams, sorted: where the list says,
	// where they have moved to, and at their further addresses.
	PeerEndpoints []netip.AddrPort

	// Refused says what is wrong with nodes that registered themselves, and so are not
	// among the Peers, or that the control source itself has left out; nil if all are.
	Refused error

	// EndpointIPv6 says that some endpoint, this node's included, is IPv6: the
	// outer header may have 40 bytes rather than 20.
	EndpointIPv6 bool
}

// NewPlan returns the plan of the node that opts names, or an error that joins all
// that is wrong with the State. In one whose nodes registered themselves, what is wrong
// with other nodes keeps only these out: see Refused.
func NewPlan(state State, opts Options) (*Plan, error) {
	var problems, self strict.Problems
	checkSelf(state, opts, &self)
	var nodes []*Node
	podCIDRs := 0
	for i, wrong := range Check(state, opts.ClusterCIDRs, opts.Key != (peer.Fingerprint{})) {
		n := &state.Nodes[i]
		if own := checkOwnKey(n, opts); own != nil {
			wrong = own // rather than that its wrong key is another's
		}
		if wrong == nil {
			nodes = append(nodes, n)
			podCIDRs += len(n.PodCIDRs)
		}
		for _, err := range each(wrong) {
			problems.Add(n.Origin, label(n), err)
		}
	}
	refused := problems.Err()
	if err := self.Err(); err != nil || refused != nil && !state.Registered {
		return nil, errors.Join(err, refused)
	}
	p := &Plan{
		Peers:         make([]*peer.Peer, 0, len(nodes)),
		ClusterCIDRs:  slices.Clone(opts.ClusterCIDRs),
		PeerCIDRs:     make([]netip.Prefix, 0, podCIDRs),
		PeerAddresses: make([]netip.Addr, 0, len(nodes)),
		Refused:       errors.Join(state.Refused, refused),
	}
	for _, n := range nodes {
		peer := newPeer(n)
		p.EndpointIPv6 = p.EndpointIPv6 || n.Endpoint.Addr().Is6()
		if n.Name == opts.Node {
			p.Self = peer
			p.PodCIDRs = slices.Clone(n.PodCIDRs)
			p.NodeAddresses = nodeAddresses(n.PodCIDRs)
			continue
		}
		p.Peers = append(p.Peers, peer)
		p.PeerCIDRs = append(p.PeerCIDRs, n.PodCIDRs...)
		p.PeerAddresses = append(p.PeerAddresses, n.Endpoint.Addr())
		p.PeerEndpoints = append(p.PeerEndpoints, n.Endpoint)
	}
	if p.Self == nil {
		return nil, fmt.Errorf("this node is refused: %w", refused)
	}
	slices.SortFunc(p.Peers, func(a, b *peer.Peer) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(p.PeerCIDRs, netip.Prefix.Compare)
	slices.SortFunc(p.PeerAddresses, netip.Addr.Compare)
	slices.SortFunc(p.PeerEndpoints, netip.AddrPort.Compare)
	p.Senders = p.PeerAddresses
	p.ownAddresses()
	return p.withTable()
}

// withTable returns p with a table made of its nodes.
func (p *Plan) withTable() (*Plan, error) {
	table, err := fib.New(p.Self, p.Peers)
	if err != nil {
		return nil, fmt.Errorf("build the FIB: %w", err)
	}
	p.Table = table
	return p, nil
}

// each returns the errors that were joined.
func each(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

func newPeer(n *Node) *peer.Peer {
	endpoint := n.Endpoint.Addr()
	return &peer.Peer{
		Name:     n.Name,
		Endpoint: n.Endpoint,
		VTEPMAC:  vtepMAC(n),
		Key:      n.Key,
		Kernel:   n.VTEPMAC != peer.MAC{},
		Prefixes: slices.Concat(n.PodCIDRs, []netip.Prefix{single(endpoint)}),
		Claimed:  claimed(n),
	}
}

// claimed returns the node's further addresses, sorted, each once.
func claimed(n *Node) []netip.Addr {
	further := slices.DeleteFunc(slices.Clone(n.Addresses), func(a netip.Addr) bool { return a == n.Endpoint.Addr() })
	slices.SortFunc(further, netip.Addr.Compare)
	return slices.Compact(further)
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// ownAddresses puts this node's further addresses behind it, but one at which the list has a
// peer's endpoint.
func (p *Plan) ownAddresses() {
	for _, a := range p.Self.Claimed {
		if !p.isListed(a) {
			p.Self.Prefixes = append(p.Self.Prefixes, single(a))
		}
	}
}

func vtepMAC(n *Node) peer.MAC {
	if n.VTEPMAC == (peer.MAC{}) {
		return peer.DeriveMAC(n.Name)
	}
	return n.VTEPMAC
}

func nodeAddresses(podCIDRs []netip.Prefix) []netip.Addr {
	var addrs []netip.Addr
	for _, p := range podCIDRs {
		if !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.BitLen() == p.Addr().BitLen() }) {
			addrs = append(addrs, p.Addr().Next())
		}
	}
	return addrs
}

// WithEndpoint returns a plan in which the peer with a key is reached at addr, and the
// port of its endpoint. Its pods are behind it as before, but neither of the addresses: it
// is not where it says, and could say so of an address that is another host's. Pods don't
// reach the listed address past the overlay either. It may send from both, as it may come back.
func (p *Plan) WithEndpoint(key peer.Fingerprint, addr netip.Addr) (*Plan, error) {
	moved := *p
	moved.Peers, moved.Senders = slices.Clone(p.Peers), slices.Clone(p.Senders)
	for i, peer := range p.Peers {
		if listed := peer.Endpoint.Addr(); peer.Key == key && listed != addr {
			there := *peer
			there.Listed, there.Endpoint = peer.Endpoint, netip.AddrPortFrom(addr, peer.Endpoint.Port())
			there.Prefixes = slices.DeleteFunc(slices.Clone(peer.Prefixes), func(p netip.Prefix) bool { return p.Addr() == listed })
			moved.Peers[i] = &there
			moved.PeerEndpoints = append(slices.Clone(moved.PeerEndpoints), there.Endpoint)
			moved.Senders = append(moved.Senders, addr)
			moved.EndpointIPv6 = moved.EndpointIPv6 || addr.Is6()
		}
	}
	slices.SortFunc(moved.Senders, netip.Addr.Compare)
	slices.SortFunc(moved.PeerEndpoints, netip.AddrPort.Compare)
	return moved.withTable()
}

// WithAddresses returns a plan in which the further addresses that peers claim and have proven
// are behind them: proven has who has shown its key at an address. An endpoint's address stays
// with its node.
func (p *Plan) WithAddresses(proven map[netip.Addr]peer.Fingerprint) (*Plan, error) {
	if len(proven) == 0 {
		return p, nil
	}
	with := *p
	with.Peers, with.PeerEndpoints = slices.Clone(p.Peers), slices.Clone(p.PeerEndpoints)
	with.PeerAddresses, with.Senders = slices.Clone(p.PeerAddresses), slices.Clone(p.Senders)
	for i, peer := range p.Peers {
		further := slices.DeleteFunc(slices.Clone(peer.Claimed), func(a netip.Addr) bool {
			key, ok := proven[a]
			return !ok || key != peer.Key || p.isTaken(a)
		})
		if len(further) == 0 {
			continue
		}
		has := *peer
		has.Prefixes = slices.Clone(peer.Prefixes)
		for _, a := range further {
			has.Prefixes = append(has.Prefixes, single(a))
			with.PeerEndpoints = append(with.PeerEndpoints, netip.AddrPortFrom(a, peer.Endpoint.Port()))
		}
		with.Peers[i] = &has
		with.PeerAddresses = append(with.PeerAddresses, further...)
		with.Senders = append(with.Senders, further...)
	}
	slices.SortFunc(with.PeerAddresses, netip.Addr.Compare)
	slices.SortFunc(with.Senders, netip.Addr.Compare)
	slices.SortFunc(with.PeerEndpoints, netip.AddrPort.Compare)
	return with.withTable()
}

// isTaken reports whether an address is this node's, or that of an endpoint in the list of nodes.
func (p *Plan) isTaken(a netip.Addr) bool {
	owner, ok := p.Table.Lookup(a)
	return p.isListed(a) || ok && owner == p.Self
}

// isListed reports whether an address is that of a peer's endpoint in the list of nodes.
func (p *Plan) isListed(a netip.Addr) bool {
	_, ok := slices.BinarySearchFunc(p.PeerAddresses, a, netip.Addr.Compare)
	return ok
}

// Equal reports whether two plans ask for the same. Their tables, being made of
// the peers, needn't be compared.
func (p *Plan) Equal(o *Plan) bool {
	return equalPeers(p.Self, o.Self) &&
		slices.EqualFunc(p.Peers, o.Peers, equalPeers) &&
		slices.Equal(p.NodeAddresses, o.NodeAddresses) &&
		slices.Equal(p.PodCIDRs, o.PodCIDRs) &&
		slices.Equal(p.ClusterCIDRs, o.ClusterCIDRs) &&
		slices.Equal(p.PeerCIDRs, o.PeerCIDRs) &&
		slices.Equal(p.PeerAddresses, o.PeerAddresses) &&
		p.EndpointIPv6 == o.EndpointIPv6
}

func equalPeers(a, b *peer.Peer) bool {
	return a.Name == b.Name && a.Endpoint == b.Endpoint && a.Listed == b.Listed && a.VTEPMAC == b.VTEPMAC && a.Key == b.Key && a.Kernel == b.Kernel &&
		slices.Equal(a.Prefixes, b.Prefixes) && slices.Equal(a.Claimed, b.Claimed)
}

// Withdrawn returns the names of the peers of p that are not among those of next, sorted.
func (p *Plan) Withdrawn(next *Plan) []string {
	var names []string
	for _, peer := range p.Peers {
		if next.peer(peer.Name) == nil {
			names = append(names, peer.Name)
		}
	}
	return names
}
