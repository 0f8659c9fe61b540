package metrics

import (
	"time"

	"weft/internal/warning"
	"weft/ipam"
	"weft/router"
)

// Sample is what one scrape shows.
type Sample struct {
	// Node is this node's name; Encapsulation, Driver and Source are what its configuration
	// chooses.
	Node, Encapsulation, Driver, Source string

	// Healthy and Ready are what /healthz and /readyz answer.
	Healthy, Ready bool

	Stats router.Stats
	Lanes []router.Stats // each of Stats' lanes

	// MTU is the TUN device's in bytes; 0 before weftd has set it.
	MTU int

	// GSO says whether the kernel takes runs of datagrams in one message (UDP GSO), and GRO is
	// how many datagrams it has joined before they were read (UDP GRO).
	GSO bool
	GRO uint64

	// JoinsTCP and JoinsUDP say whether the TUN device takes packets that were joined.
	JoinsTCP, JoinsUDP bool

	Prefixes int
	Peers    Peers

	// Handshakes is nil where packets are not sealed.
	Handshakes *Handshakes

	List    List
	Control Control
	Host    Host

	// Leases is how pod addresses are used; nil if the lease file can't be read.
	Leases *ipam.Usage

	// Reconciled is how often leases were reconciled, by action, and Unreconciled how much of
	// them only an operator can repair.
	Reconciled   map[string]uint64
	Unreconciled int

	// Warnings are what an operator needs to know while pods go on.
	Warnings []warning.Warning
}

// List is how the control source's list of nodes stands.
type List struct {
	Current    bool // the newest one is applied as a whole
	Rejections int  // lists, and errors of the control source, since the start

	// RejectedNodes says that nodes have registered themselves so that they can't be peers.
	RejectedNodes bool

	Kept       int // peers that it removes, and weftd keeps
	KeyChanges int // times that it had another key for a known node
}

// Control is how the control source answers.
type Control struct {
	Reachable bool
	Contact   time.Time // when it last answered; zero if it never did
}

// Host is what weftd has in the kernel beside its data path.
type Host struct {
	Guard bool // the guard table is there, and is the one that weftd has made

	// Drops are the packets that the guard table has dropped, by its counters; nil if they
	// can't be read.
	Drops map[string]uint64

	// Repairs are how often weftd restored what another program had removed or changed.
	Repairs map[string]uint64
}

// Peers is how this node and its peers stand.
type Peers struct {
	Count   int
	States  map[string]int // every state is there
	Reduced int            // those to which the path's MTU is smaller than what pods send

	// Each is all of them; nil where there are more than the configuration wants series for.
	Each []Peer
}

// Peer is one of them.
type Peer struct {
	Name, State string
	Seen        time.Time // when it last showed that it lives; zero if it never did

	// Pods' packets, without encapsulation.
	SentPackets, SentBytes         uint64
	ReceivedPackets, ReceivedBytes uint64

	RTT     time.Duration // 0 if it is not known
	MTU     int           // bytes of the largest packets of pods that arrive; 0 if it is not known
	Reduced bool          // because of the path's MTU

	Probed bool    // it has answered a probe
	Loss   float64 // the part of the last probes that it did not answer, from 0 to 1
}

// Handshakes is what has become of handshakes until now.
type Handshakes struct {
	Agreed      uint64 // those that made keys
	Failed      uint64 // those of this node that came to nothing
	Refused     uint64 // those of this node that a peer refused for now
	TurnedAway  uint64 // those of peers that this node refused for now
	Unreachable uint64 // times that a peer stopped answering
}
