// Package etcd is the control source in which every node registers itself in etcd, and
// claims its pod CIDRs out of the cluster CIDRs. It writes the entry and the claims of its
// own node only, and trusts none of the others'.
//
// # Keys
//
//	PREFIX/nodes/NAME         the node's entry: the JSON of a control.Node
//	PREFIX/podcidrs/v4/NAME   the IPv4 pod CIDR that the node claims: "10.244.1.0/24"
//	PREFIX/podcidrs/v6/NAME   the IPv6 one
//
// The name is in the key of a claim, and not the CIDR, so that an etcd role can let a node
// write these three keys and nothing else; see docs/SECURITY.md. That no two nodes claim
// one CIDR is kept by the transaction that writes a claim: etcd carries it out only if no
// claim has this value. Where two claims overlap all the same, having been written by
// hand, by a node that was taken over, or by nodes with other lengths at the same moment,
// the one that was written first is right: etcd counts its writes, and no node can forge
// the number of his. A claim that is changed is a new one.
//
// # Order
//
// A Source lists all keys, and then watches them from that revision on. Whatever is wrong
// with the watch, it lists again: the list replaces all that was known. This node's own
// keys take the same way: a write counts when the watch reports it, and by then
// the watch has reported all earlier ones.
package etcd
