// Package fib is the immutable longest-prefix-match table of the data path:
// which node does an address belong to?
//
// A table is built once, published through an atomic pointer, and read by every
// lane without a lock. It is never changed: a new State makes a new Table.
package fib

import (
	"fmt"
	"iter"
	"net/netip"

	"github.com/gaissmai/bart"

	"weft/peer"
)

// Table answers for every address which node it belongs to, and for every
// underlay address which peer sends from it.
type Table struct {
	self    *peer.Peer
	senders map[netip.Addr]*peer.Peer
	keys    map[peer.Fingerprint]*peer.Peer

	// owners is the larger and faster kind: with a million prefixes 31 in place of 22
	// bytes for each, and 18 in place of 25 ns for a packet of the flow before
	// (go test -bench . ./scale in benchmarks).
	owners bart.Fast[*peer.Peer]
}

// New builds the table of a node that is described by self and knows peers.
// It refuses a prefix or an underlay address that two nodes claim; the planner has
// reported it to the operator before.
func New(self *peer.Peer, peers []*peer.Peer) (*Table, error) {
	t := &Table{self: self, senders: make(map[netip.Addr]*peer.Peer, len(peers)), keys: make(map[peer.Fingerprint]*peer.Peer, len(peers))}
	if err := t.own(self); err != nil {
		return nil, err
	}
	for _, p := range peers {
		if err := t.own(p); err != nil {
			return nil, err
		}
		addr := p.Endpoint.Addr()
		if addr == self.Endpoint.Addr() {
			return nil, fmt.Errorf("nodes %s and %s both have the endpoint address %s", self.Name, p.Name, addr)
		}
		if other, taken := t.senders[addr]; taken {
			return nil, fmt.Errorf("nodes %s and %s both have the endpoint address %s", other.Name, p.Name, addr)
		}
		t.senders[addr] = p
		t.keys[p.Key] = p // of no meaning where nodes have no keys
	}
	return t, nil
}

func (t *Table) own(p *peer.Peer) error {
	for _, prefix := range p.Prefixes {
		if other, taken := t.owners.Get(prefix); taken {
			return fmt.Errorf("nodes %s and %s both own %s", other.Name, p.Name, prefix)
		}
		t.owners.Insert(prefix, p)
	}
	return nil
}

// Lookup returns the node with the longest prefix that contains addr: a peer, or
// this node itself (see Self).
func (t *Table) Lookup(addr netip.Addr) (*peer.Peer, bool) { return t.owners.Lookup(addr) }

// Match returns the longest prefix that contains addr, and its node.
func (t *Table) Match(addr netip.Addr) (netip.Prefix, *peer.Peer, bool) {
	prefix, p, ok := t.owners.LookupPrefixLPM(netip.PrefixFrom(addr, addr.BitLen()))
	return prefix, p, ok
}

// All yields all prefixes and their nodes, in no particular order.
func (t *Table) All() iter.Seq2[netip.Prefix, *peer.Peer] { return t.owners.All() }

// Self is this node.
func (t *Table) Self() *peer.Peer { return t.self }

// Sender returns the peer whose datagrams come from the underlay address addr,
// which must not be IPv4-mapped.
func (t *Table) Sender(addr netip.Addr) (*peer.Peer, bool) {
	p, ok := t.senders[addr]
	return p, ok
}

// ByKey returns the peer that has a key, or nil.
func (t *Table) ByKey(key peer.Fingerprint) *peer.Peer { return t.keys[key] }

// Peers returns the number of other nodes.
func (t *Table) Peers() int { return len(t.senders) }

// Size returns the number of prefixes, this node's own included.
func (t *Table) Size() int { return t.owners.Size() }
