// Package drop names the reasons for which a packet is not forwarded. Every
// packet that weft takes and does not deliver is counted under exactly one.
package drop

// Reason says why a packet was dropped.
type Reason uint8

const (
	// None means that the packet goes on.
	None Reason = iota

	// Outbound: from the TUN device to a peer.

	// TUNQueueFull: the kernel had no room for the packet in a queue of the TUN device.
	TUNQueueFull
	// Unfinished: a frame with work left to its encapsulation that this one cannot do.
	Unfinished
	// SourceNotLocal: the source address is not this node's, nor one of its pods'.
	SourceNotLocal
	// NoRoute: no node owns the destination.
	NoRoute
	// DestinationLocal: the destination is this node's own; the kernel should not have sent it here.
	DestinationLocal
	// NoKeys: no keys are agreed with the peer, and too much waits for them already.
	NoKeys
	// TooBig: the datagram exceeds the path's MTU (EMSGSIZE).
	TooBig
	// Unreachable: the underlay has no way to the peer (ENETUNREACH, EHOSTUNREACH).
	Unreachable
	// SendRefused: a packet filter or policy of this host refused the datagram (EPERM, EACCES).
	SendRefused
	// SendQueueFull: the socket's buffer or the card's queue has no room (EAGAIN, ENOBUFS).
	SendQueueFull
	// SendFailed: the kernel refused the datagram for another reason.
	SendFailed

	// Inbound: from a peer to the TUN device.

	// ReceiveQueueFull: the kernel had no room for the datagram in a socket.
	ReceiveQueueFull
	// UnknownPeer: the datagram comes from an address that is no node's.
	UnknownPeer
	// Truncated: the datagram ends before its headers do.
	Truncated
	// BadHeader: the encapsulation header has unknown flags, or none of ours.
	BadHeader
	// UnknownIndex: the datagram names no session that there is.
	UnknownIndex
	// Replayed: the datagram came before, or is too late for the window to show that.
	Replayed
	// NotAuthentic: the datagram was not sealed with the session's key, or was changed.
	NotAuthentic
	// HandshakesFull: more parts of handshakes wait than there is room for.
	HandshakesFull
	// ProbesFull: a peer probes the path more often than this node answers.
	ProbesFull
	// WrongVNI: the datagram belongs to another VXLAN network.
	WrongVNI
	// WrongMAC: the Ethernet destination is not this node's VTEP address.
	WrongMAC
	// NotIP: the encapsulated frame is neither IPv4 nor IPv6 (ARP, for one).
	NotIP
	// Congestion: the underlay marked congestion, and the packet's flow does not
	// understand such marks (RFC 6040 §4.2).
	Congestion
	// SourceNotPeer: the source address does not belong to the peer that sent the packet.
	SourceNotPeer
	// DestinationNotLocal: the destination is neither a pod of this node nor the node.
	DestinationNotLocal
	// WriteRefused: the kernel did not take the packet from the TUN device.
	WriteRefused

	// Both directions.

	// Unreadable: a read of the TUN device or the socket failed; what it would have
	// brought is not known.
	Unreadable

	// Malformed: the IP header contradicts itself or the packet's length.
	Malformed

	// Count is the number of reasons, None included.
	Count
)

var names = [Count]string{
	None:                "none",
	TUNQueueFull:        "tun_queue_full",
	Unfinished:          "unfinished",
	SourceNotLocal:      "source_not_local",
	NoRoute:             "no_route",
	DestinationLocal:    "destination_local",
	NoKeys:              "no_keys",
	TooBig:              "too_big",
	Unreachable:         "unreachable",
	SendRefused:         "send_refused",
	SendQueueFull:       "send_queue_full",
	SendFailed:          "send_failed",
	ReceiveQueueFull:    "receive_queue_full",
	UnknownPeer:         "unknown_peer",
	Truncated:           "truncated",
	BadHeader:           "bad_header",
	UnknownIndex:        "unknown_index",
	Replayed:            "replayed",
	NotAuthentic:        "not_authentic",
	HandshakesFull:      "handshakes_full",
	ProbesFull:          "probes_full",
	WrongVNI:            "wrong_vni",
	WrongMAC:            "wrong_mac",
	NotIP:               "not_ip",
	Congestion:          "congestion",
	SourceNotPeer:       "source_not_peer",
	DestinationNotLocal: "destination_not_local",
	WriteRefused:        "write_refused",
	Unreadable:          "unreadable",
	Malformed:           "malformed",
}

// String returns the reason as metrics and logs name it.
func (r Reason) String() string {
	if r >= Count {
		return "unknown"
	}
	return names[r]
}

// All returns every reason for a drop, in the order in which a packet meets them.
func All() []Reason {
	all := make([]Reason, 0, Count-1)
	for r := None + 1; r < Count; r++ {
		all = append(all, r)
	}
	return all
}
