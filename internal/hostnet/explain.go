package hostnet

import "slices"

// Explanation is what operators need to know of a counter of the guard table, as the manual has it.
type Explanation struct{ What, Remedy string }

var explanations = map[string]Explanation{
	dropForeignSource: {"a packet from the underlay with a pod's address as source",
		"look for a host that uses the cluster CIDRs"},
	dropBare: {"a packet from the underlay for a pod's address, not encapsulated",
		"use a hostPort or Service, or list a trusted interface under `guard.trusted`"},
	dropSpoofed: {"a pod's packet with another source than its own",
		"nothing, if the pod forges packets; if it forwards packets, have it masquerade them; otherwise another program's routing rule or route diverts the pod's address: `weft explain` names it"},
	dropRouterAdvert: {"a router advertisement or redirect by a pod",
		"nothing: no pod is a router"},
	dropTunnelInTunnel: {"a pod's packet to weft's port of a node",
		"nothing: it can only be forged"},
	dropLocalSender: {"a datagram to weft's port of a node that a program of this node other than weftd sent",
		"look for that program: it forges datagrams"},
	dropLocalSpoof: {"a packet of a program of this node with a pod's address as source",
		"look for that program: it forges packets"},
	dropLoopback: {"a packet from or to 127.0.0.0/8 that didn't come from this node itself",
		"nothing: it is dropped, though kube-proxy and portmap make the kernel route such packets"},
	dropNonPeer: {"datagrams to weft's port from non-peer sources, beyond a thousand a second (joined ones count as one)",
		"filter these sources in the underlay; peers keep their share"},
	dropTransit: {"a packet out of the overlay that is not for this node's pods",
		"nothing: peers must not reach the underlay, or each other, through this node"},
	dropLeak: {"a packet between pods or peers that would have left unencapsulated",
		"check that weftd runs and `weft0` is up; look for a route of another program"},
	dropPathMTU: {"an ICMP message that reports a datagram of weft's as too big for the path: anyone can forge these, and weft does not need them",
		"nothing, unless large packets stall"},
}

// Explain returns what packets the guard table drops under a counter, and what to do.
func Explain(counter string) Explanation { return explanations[counter] }

// DropCounters returns the names of all counters.
func DropCounters() []string { return slices.Clone(dropCounters) }
