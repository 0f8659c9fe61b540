// Package control turns what a control source says exists into what this node must
// therefore have: State → Plan.
//
// A Source emits whole States, never deltas, so that a restart, a missed event and
// a reload are one path. NewPlan is a pure function: it reads no file, no clock and
// no device, and starts nothing. Whoever calls it compares the new Plan with the
// one applied and carries out the difference; this package never touches the host.
package control

import (
	"context"
	"errors"
	"net/netip"

	"weft/peer"
)

// State is what a control source says exists: every node of the cluster. A State
// is as it was written; only a Plan is checked.
type State struct {
	// Origin is where the list of nodes is kept, for messages: "/etc/weft/nodes.yaml".
	Origin string

	Nodes []Node

	// Registered says that each node has written itself, rather than one person all of
	// them. What is wrong with a node then costs only this node, and where two contradict
	// each other, the one that stands first in Nodes is right.
	Registered bool

	// Refused says what the source found wrong with nodes that it therefore left out of
	// Nodes; nil if there are none.
	Refused error

	// Gone are the keys of nodes that were listed once, by name. Snapshots have them, and no
	// control source: a node that comes back with another key is noticed after a restart too.
	Gone map[string]peer.Fingerprint
}

// Node is one node as the control source describes it. Its JSON is what the node itself
// writes where nodes register, and what snapshots keep.
type Node struct {
	Name     string         `json:"name"`
	Endpoint netip.AddrPort `json:"endpoint"`

	// Addresses are further underlay addresses that the node says it has, at most
	// strict.MaxNodeAddresses; the endpoint's may be among them.
	Addresses []netip.Addr `json:"addresses,omitempty"`

	// PodCIDRs are the ranges of the node's pods. The first one of each address
	// family gives the node its own overlay address.
	PodCIDRs []netip.Prefix `json:"podCIDRs"`

	// VTEPMAC is zero if the control source says nothing: peer.DeriveMAC then
	// gives the address, and the node is a weft node. A node whose address had to be
	// written is taken for a kernel VXLAN device.
	VTEPMAC peer.MAC `json:"vtepMAC,omitzero"`

	// Key is the fingerprint of the node's key; zero if the control source says nothing.
	Key peer.Fingerprint `json:"key,omitzero"`

	// Origin is where the node was written, for messages: "/etc/weft/nodes.yaml:12".
	Origin string `json:"-"`
}

// Source is where States come from.
type Source interface {
	// Run calls emit with the State, or with the reason why there is none, at the
	// start, after every change, and whenever reload receives. An error means that
	// the last good State still stands. Calls don't overlap, and there is none
	// after Run has returned. A nil reload never receives.
	//
	// Run returns nil when ctx is done, and an error only if no State can come any more.
	Run(ctx context.Context, reload <-chan struct{}, emit func(State, error)) error
}

// Registry is a source in which every node writes itself.
type Registry interface {
	Source

	// Register has Run write what a node says of itself, now and again whenever it finds
	// something else written there. Only the last call counts. It doesn't wait, and may be
	// called from any goroutine, before Run too. Run writes nothing before the first call.
	Register(Self)

	// Identity distinguishes the cluster from any other, as far as that can be known without asking
	// it. It is for comparing, and not for reading.
	Identity() string
}

// ErrNoPodCIDR is in the error of a Registry in which this node has no pod CIDR, or not the one
// that it had: that may be another's by now, and no pod may get an address of it until there
// is a State again.
var ErrNoPodCIDR = errors.New("no pod CIDR")

// Self is what a node says of itself to a Registry.
type Self struct {
	// Endpoint is where the other nodes send to. Its address may be invalid (the zero
	// Addr) if the Registry knows which one it is.
	Endpoint netip.AddrPort

	// Addresses are the node's further addresses; none if the Registry knows which ones.
	Addresses []netip.Addr

	// Key is the fingerprint of the node's key; zero if it has none.
	Key peer.Fingerprint

	// Forwards are the pod CIDRs whose pods can be reached now; nil while none can.
	Forwards []netip.Prefix

	// Down says why pods have had no network for so long that no new ones must come to this
	// node; empty if they have, and for a while after a start.
	Down string

	// Stranded are the pods of this node that no other node reaches, because their addresses
	// are outside its pod CIDRs: names and addresses, for people.
	Stranded []string

	// Held are the pod CIDRs that this node forwards with already, or did since it booted; nil if
	// it has none yet. A Registry out of which nodes take their pod CIDRs lets it keep them if it
	// can, whatever has become of what is written there. Kubernetes gives them itself, and
	// ignores what was held.
	Held []netip.Prefix
}
