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

	Peers, Prefixes int

	// Links is nil where packets are not sealed.
	Links *Links

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

// Links is how this node and its peers stand, and what has happened until now.
type Links struct {
	Peers       map[string]int // by state; every state is there
	Agreed      uint64         // handshakes that made keys
	Failed      uint64         // handshakes of this node that came to nothing
	Refused     uint64         // handshakes of this node that a peer refused for now
	TurnedAway  uint64         // handshakes of peers that this node refused for now
	Unreachable uint64         // times that a peer stopped answering
}
