package handshake

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/time/rate"

	"weft/encap/sealed"
	"weft/peer"
)

// Why a connection is closed, as the other node learns.
const (
	codeReplaced quic.ApplicationErrorCode = iota // newer keys are agreed
	codeIdle                                      // no packets pass
	codeBusy                                      // the other direction's handshake is to go on
	codeRefused                                   // the exchange failed
	codeGone                                      // the node is not in the list any more, or ends
)

// How long to wait after failures in a row, at the least and at the most. Between half
// of it and all of it is really waited, so that nodes do not keep time with each other.
const (
	firstBackoff = 250 * time.Millisecond
	lastBackoff  = 8 * time.Second
)

// soonAgain is after how many failures in a row a peer counts as down. Until then it is tried
// again as soon as the backoff is over, though no packet is for it: packets may have been lost, or
// either node busy.
const soonAgain = 5

// simultaneousOpenWindow is how long a dial of this node takes precedence over one of the other
// node, if it does at all: a dial that has gone on for longer met a node that was not there yet.
const simultaneousOpenWindow = 300 * time.Millisecond

// link is what is known about a peer. The manager's lock guards it.
type link struct {
	peer  *sealed.Peer
	node  *peer.Peer // as the newest list of nodes has it
	using sync.Mutex // held while an epoch begins to be used

	conn      *quic.Conn // of the newest epoch, or nil
	wanted    bool       // HandshakeDone is due
	answering int        // handshakes of the peer that are under way
	dial      *dial      // under way, or nil

	failures    int           // in a row
	refusals    int           // in a row: the peer had too many handshakes under way, or dialed itself
	retry       time.Time     // when to dial again, at the earliest
	looked      time.Time     // when the peer was last looked for elsewhere
	lookAgain   time.Duration // how long after that it may be looked for again
	tried       time.Time     // when the peer was last dialed
	unreachable bool          // it is among the manager's lost
	lastErr     error         // why the last attempt failed, or the connection ended

	rekey   time.Duration // after how long this end replaces the keys
	overdue bool          // the keys are older than they ought to be

	delivery delivery
	answers  *rate.Limiter // to the peer's inquiries; it needs no lock

	seen   sealed.Traffic // when the link was last looked at
	active time.Time      // when packets last passed
	heard  time.Time      // when the peer last showed that it lives, before the connection that there is

	received time.Time // when packets last came without a connection, since the last one ended
}

// returned reports whether an address that keys were agreed at is where the list of nodes
// has a peer that roams, or may roam to.
func (l *link) returned(addr netip.Addr) bool {
	return addr != l.node.Endpoint.Addr() && addr == l.node.Listed.Addr()
}

// target is where to dial the peer next. One that roams may be back where the list has it,
// without keys, so that no datagram says so: every other attempt goes there.
func (l *link) target() netip.AddrPort {
	if l.node.Listed.IsValid() && l.failures%2 == 1 {
		return l.node.Listed
	}
	return l.node.Endpoint
}

// dial is an attempt of this node to agree on keys.
type dial struct {
	context.Context // done when the attempt is given up
	stop            context.CancelFunc
	link            *link
	urgency         urgency   // while it waits for its turn, and after that
	began           time.Time // zero before its turn
	to              netip.AddrPort

	// moved is where the peer may be now. Its endpoint changes only when keys are agreed
	// there: a datagram that an attacker has held back and sends from elsewhere is authentic.
	moved *sealed.Move
}

// observe notices whether packets pass, and reports whether some came from the peer.
func (l *link) observe(now time.Time) (heard bool) {
	t := l.peer.Traffic()
	t.Refused = 0
	if t == l.seen {
		return false
	}
	heard = t.ReceivedPackets != l.seen.ReceivedPackets
	if heard {
		l.heard, l.received = now, now
	}
	l.seen, l.active = t, now
	return heard
}

// lastHeard returns when the peer last showed that it lives, or zero. A connection has a sign
// of life every keepAlive, or ends.
func (l *link) lastHeard(now time.Time) time.Time {
	if l.conn != nil {
		return now
	}
	return l.heard
}

// endOld ends the epochs that were replaced, or came to nothing, long enough ago.
func (l *link) endOld(now time.Time, overlap time.Duration) {
	using, epochs := l.peer.Sending(), l.peer.Epochs()
	for i, e := range epochs {
		replaced := e.Began()
		if i+1 < len(epochs) {
			replaced = epochs[i+1].Began()
		}
		if e != using && now.Sub(replaced) > overlap {
			e.End()
		}
	}
}

func less(a, b peer.Fingerprint) bool { return bytes.Compare(a[:], b[:]) < 0 }

// dialWins reports whether this node's dial is to go on when the peer dials too. Both
// come to the same result.
func (l *link) dialWins(self peer.Fingerprint) bool {
	return l.dial != nil && less(self, l.peer.Key) && time.Since(l.dial.began) < simultaneousOpenWindow
}

func (l *link) close(code quic.ApplicationErrorCode) {
	if l.conn != nil {
		_ = l.conn.CloseWithError(code, "")
		l.conn = nil
	}
}

// handshakeDone ends the pending handshake, if there is one.
func (l *link) handshakeDone(agreed bool) {
	if l.wanted {
		l.wanted = false
		l.peer.HandshakeDone(agreed)
	}
}

// backoff is how long to wait after so many failures, or refusals, in a row.
func backoff(first, last time.Duration, inARow int) time.Duration {
	d := min(first<<min(inARow, 10), last)
	return d/2 + rand.N(d/2)
}
