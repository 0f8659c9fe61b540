package drop

// Explanation is what operators need to know of a reason, as the manual has it.
type Explanation struct{ What, Remedy string }

var explanations = [Count]Explanation{
	TUNQueueFull: {"the kernel had no room for a pod's packet in a queue of `weft0`, or weftd did not run",
		"nothing after a crash. Otherwise weftd is too slow: give the host more processor time, or weftd more lanes (`tun.lanes`)"},
	Unfinished: {"the work that the kernel, or a pod with raw sockets, left to do contradicts the packet",
		"nothing, if a pod forges packets; otherwise report it"},
	SourceNotLocal: {"the source address is neither this node's nor its pods'",
		"the node forwards packets of another network into the overlay: have it masquerade them"},
	NoRoute: {"no node owns the destination",
		"check that the node is in the list"},
	DestinationLocal: {"a packet for this node's own pods came out of `weft0`",
		"look for a route of another program"},
	NoKeys: {"no keys are agreed with the peer, and too many packets wait for them, or have waited too long; or a key has sealed as much as it may",
		"`weft peers` gives the reason"},
	TooBig: {"the datagram exceeds the MTU of the outgoing device",
		"set `tun.mtu` to the smallest underlay MTU less the overhead"},
	Unreachable: {"the underlay has no path to the peer",
		"check routes and neighbours of the underlay"},
	SendRefused: {"a packet filter of this host refuses the datagram",
		"allow UDP to the peers' port"},
	SendQueueFull: {"the socket's buffer or the card's queue is full",
		"the underlay is slower than the pods send"},
	SendFailed: {"the kernel refused the datagram for another reason",
		"see the kernel's log"},
	ReceiveQueueFull: {"the kernel had no room for a datagram in weftd's socket; a few: its checksum was wrong",
		"weftd is too slow for what arrives: give the host more processor time, or weftd more lanes (`tun.lanes`); with the warning `udp_buffers`, enlarge the buffers"},
	UnknownPeer: {"a datagram (`sealed`: a part of a handshake) from an address that is no node's",
		"it is another host, a node missing from the list or behind a NAT, or a node whose endpoint is an address that none of its interfaces has"},
	Truncated: {"not what a peer of this kind sends",
		"compare `encapsulation` between nodes; look for another program on this port. ARP of a kernel peer counts as `not_ip`"},
	BadHeader: {"not what a peer of this kind sends",
		"compare `encapsulation` between nodes; look for another program on this port. ARP of a kernel peer counts as `not_ip`"},
	NotIP: {"not what a peer of this kind sends",
		"compare `encapsulation` between nodes; look for another program on this port. ARP of a kernel peer counts as `not_ip`"},
	UnknownIndex: {"a datagram is sealed with keys that this node does not have, or no longer has",
		"nothing, if this node was restarted: new keys are agreed on at once. Otherwise a non-peer sent it"},
	Replayed: {"a datagram came twice, or too late to be checked",
		"a few: the underlay duplicates or delays. Many: an attacker replays recorded datagrams"},
	NotAuthentic: {"a datagram was not sealed with the session's key, or was changed on its way",
		"an attacker forges datagrams, or a device of the underlay changes them"},
	HandshakesFull: {"more parts of handshakes wait than there is room for",
		"nothing, if many nodes have just started: they send again. Otherwise an attacker floods this node under a peer's address"},
	ProbesFull: {"a peer sends more probes than this node answers",
		"nothing, if other drops are few; otherwise a peer, or with `vxlan` a host under its address, floods this node"},
	WrongVNI: {"another VXLAN network",
		"make `vxlan.vni` the same on all nodes"},
	WrongMAC: {"the frame is for another VTEP",
		"correct `vtepMAC` to what the peer has; broadcasts of a kernel peer count too"},
	Congestion: {"the underlay marked congestion instead of dropping, and the packet's flow does not understand marks",
		"nothing: it is the drop that the flow understands"},
	SourceNotPeer: {"a peer sent from an address that isn't behind it",
		"compare the lists of nodes; otherwise the packet is forged"},
	DestinationNotLocal: {"a peer sent to an address that isn't behind this node",
		"compare the lists of nodes"},
	WriteRefused: {"the kernel did not accept the packet",
		"check that `weft0` is up"},
	Unreadable: {"a read of the device or the socket failed",
		"see the kernel's log"},
	Malformed: {"the IP header contradicts the packet's length",
		"a broken sender"},
}

// Explain returns what has happened when a packet is dropped for this reason, and what to do.
func (r Reason) Explain() Explanation {
	if r >= Count {
		return Explanation{}
	}
	return explanations[r]
}

// Parse returns the reason that String names, or None.
func Parse(name string) Reason {
	for _, r := range All() {
		if r.String() == name {
			return r
		}
	}
	return None
}
