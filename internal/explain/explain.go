// Package explain says what becomes of a packet on a node, step by step in the order in which a
// packet meets them: guard, routing, filters of other programs, forwarding table, keys, datagram.
//
// It asks what there is, and changes nothing. What it says of the kernel the kernel has said: routes
// are looked up as the kernel does it, and filters are followed as they are installed. The answers are
// about the first packet of a connection.
package explain

import (
	"fmt"
	"net/netip"

	"weft/fib"
	"weft/internal/hostcheck"
	"weft/internal/hostnet"
	"weft/internal/marks"
	"weft/internal/strict"
	"weft/peer"
)

// Query is the packet that is asked about.
type Query struct {
	Source      netip.Addr `json:"source"`
	Destination netip.Addr `json:"destination"`
	Protocol    string     `json:"protocol"` // tcp or udp
	Port        uint16     `json:"port"`     // the destination's
}

// Step is what happens to the packet at one point of its way.
type Step struct {
	Part string `json:"part"` // as "guard", "route"
	Text string `json:"text"`
}

// Verdict is what becomes of the packet.
type Verdict struct {
	Delivered bool   `json:"delivered"`
	Text      string `json:"text"`
	Remedy    string `json:"remedy,omitempty"` // if it is not delivered
}

// Answer is what becomes of a packet on one node.
type Answer struct {
	Node string `json:"node"`
	Query
	Steps   []Step  `json:"steps"`
	Verdict Verdict `json:"verdict"`

	// Peer names the node that the packet is sent to, or comes from, and SentFrom is its source then.
	Peer     string     `json:"peer,omitempty"`
	Inbound  bool       `json:"inbound,omitempty"` // it comes from the peer
	SentFrom netip.Addr `json:"sentFrom,omitzero"`
}

// Kernel answers for the node's kernel.
type Kernel interface {
	Way(hostnet.Lookup) (hostnet.Way, error)
	Interface(name string) hostcheck.Interface
	Judge(hook string, p hostcheck.Packet) (hostcheck.Drop, bool)
	Masquerades(p hostcheck.Packet) bool
}

// Pod is a pod of this node.
type Pod struct {
	Name string // NAMESPACE/NAME, or the attachment's; "" is not said
	Link string // the host side of its veth
}

func (p Pod) String() string {
	if p.Name == "" {
		return "a pod"
	}
	return "pod " + p.Name
}

// Peer is what is known of the link to a peer.
type Peer struct {
	State string  // as `weft peers` has it
	Error string  // why the peer does not answer, and the remedy
	Down  bool    // it does not answer
	MTU   int     // the largest packets that arrive, in bytes; 0 if that is not known
	Loss  float64 // of probes, from 0 to 1
}

// Node is what weftd knows.
type Node struct {
	Kernel

	Name          string
	TUN           string
	Encapsulation string
	Port          uint16
	Mask          marks.Mask
	ClusterCIDRs  []netip.Prefix
	Table         *fib.Table

	Pods  map[netip.Addr]Pod
	Peers map[string]Peer

	// Unread is why the answer may miss a filter; "" if all could be read.
	Unread string

	// Drops are those of the last minute, by weftd and by the guard table.
	Drops, GuardDrops map[string]uint64
}

// kind is where an address is, as this node sees it.
type kind int

const (
	outside   kind = iota // in no pod CIDR, and no node's
	nobody                // in the cluster CIDRs, and in no node's pod CIDR
	vacant                // in this node's pod CIDRs, and no pod's
	localPod              // a pod's of this node
	localNode             // this node's own
	atPeer                // a peer's, or in its pod CIDRs
)

// place is where an address is.
type place struct {
	kind   kind
	pod    Pod
	peer   *peer.Peer
	prefix netip.Prefix
}

func (n Node) place(a netip.Addr) place {
	prefix, owner, found := n.Table.Match(a)
	if pod, ok := n.Pods[a]; ok {
		return place{kind: localPod, pod: pod, prefix: prefix}
	}
	if n.isLocal(a) {
		return place{kind: localNode}
	}
	switch {
	case found && owner == n.Table.Self():
		return place{kind: vacant, prefix: prefix}
	case found:
		return place{kind: atPeer, peer: owner, prefix: prefix}
	}
	for _, c := range n.ClusterCIDRs {
		if c.Contains(a) {
			return place{kind: nobody, prefix: c}
		}
	}
	return place{kind: outside}
}

// isLocal says whether an address is this node's.
func (n Node) isLocal(a netip.Addr) bool {
	way, err := n.Way(hostnet.Lookup{Destination: a})
	return err == nil && way.Type == "local"
}

func (n Node) describe(p place) string {
	switch p.kind {
	case localPod:
		return fmt.Sprintf("%s of this node, behind %s", p.pod, p.pod.Link)
	case localNode:
		return fmt.Sprintf("this node, %s", n.Name)
	case atPeer:
		if p.prefix.IsSingleIP() {
			return fmt.Sprintf("the node %s itself", p.peer.Name)
		}
		return fmt.Sprintf("behind node %s (%s)", p.peer.Name, p.prefix)
	case vacant:
		return fmt.Sprintf("in this node's pod CIDR %s, but no pod has it", p.prefix)
	case nobody:
		return fmt.Sprintf("in the cluster CIDR %s, but no node has it", p.prefix)
	}
	return "outside the cluster"
}

// Explain says what becomes of the packet.
func (n Node) Explain(q Query) Answer {
	t := &trace{Node: n, query: q, answer: &Answer{Node: n.Name, Query: q, Steps: []Step{}}, source: q.Source, from: n.place(q.Source), to: n.place(q.Destination)}
	t.step("source", "%s: %s", q.Source, n.describe(t.from))
	t.step("destination", "%s: %s", q.Destination, n.describe(t.to))
	if n.Unread != "" {
		t.step("filters", "not all can be read, so one that drops the packet may be missing here: %s", n.Unread)
	}
	switch t.from.kind {
	case vacant:
		t.fail("`weft ipam list` shows this node's pods", "no pod of this node has the source address %s", q.Source)
	case nobody:
		t.fail("check that its node is in the list of nodes", "no node has the source address %s", q.Source)
	case localPod:
		t.fromPod()
	case localNode:
		t.fromNode()
	case atPeer:
		if t.betweenNodes() {
			t.fromOutside()
		} else {
			t.fromPeer()
		}
	case outside:
		t.fromOutside()
	}
	return *t.answer
}

// betweenNodes says that a peer node itself sends to this node's address of the underlay: past the
// overlay.
func (t *trace) betweenNodes() bool {
	return t.to.kind == localNode && !strict.Within(t.from.prefix, t.ClusterCIDRs) &&
		!strict.Within(netip.PrefixFrom(t.query.Destination, t.query.Destination.BitLen()), t.ClusterCIDRs)
}
