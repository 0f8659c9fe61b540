package handshake

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// How many of the handshakes that others have begun may come from one address, but not more
// than half of all that there may be.
const (
	// fromUnproven holds before the sender has shown that the address is its own (RFC 9000
	// §8.1.2), which takes a round trip.
	fromUnproven = 2

	// fromProven holds after that.
	fromProven = 8
)

// placeWithin is how long a handshake waits for a place before it is refused: long enough for
// others to end, and short enough for the dialer to hear the refusal before it gives up.
const placeWithin = time.Second

// admission decides which handshakes others may begin. Half of the limit is for addresses that
// were proven: a sender that forges a peer's address can't do that, and keeps no other out.
//
// QUIC calls verifyAddress and admit from one goroutine, which handles nothing but the first
// packets of handshakes. So while admit waits, others wait in the order that they came in, and
// the handshakes that are under way go on.
type admission struct {
	limit   *limit
	replies *replies
	freed   chan struct{} // receives when a place may have become free
	closed  chan struct{}
	close   func()

	mu       sync.Mutex // guards what follows
	from     map[netip.Addr]int
	total    int
	unproven int // of total
	refused  uint64

	decided     map[netip.Addr]decision // of all peers at the most
	lastDecided time.Time
}

// decision is what becomes of a dial that is not admitted: the sender must prove its address
// first, or is refused. It stands for all packets of the dial, which begins with two of them and
// sends copies until it hears of the decision: if one of them were admitted after all, there would
// be a handshake that can't end.
type decision struct {
	prove bool
	until time.Time // of the arrival of the packets
}

// How long after a decision packets of the same dial may arrive. A dialer that was refused makes
// no new dial before; one that makes a new dial may be asked for a proof in vain.
const (
	provesFor  = handshakeTimeout
	refusedFor = simultaneousOpenWindow
)

type admissionKey struct{}

var errTooMany = errors.New("too many handshakes under way")

func newAdmission(l *limit, replies *replies) *admission {
	closed := make(chan struct{})
	return &admission{
		limit:   l,
		replies: replies,
		freed:   make(chan struct{}, 1),
		closed:  closed,
		close:   sync.OnceFunc(func() { close(closed) }),
		from:    map[netip.Addr]int{},
		decided: map[netip.Addr]decision{},
	}
}

// verifyAddress implements quic.Transport.VerifySourceAddress.
func (a *admission) verifyAddress(addr net.Addr) bool {
	prove := a.mustProve(addr.(sender))
	if prove {
		a.replies.await(a.closed)
	}
	return prove
}

func (a *admission) mustProve(s sender) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d, ok := a.decidedFor(s); ok {
		return d.prove
	}
	from := addrOf(s)
	if a.from[from] < fromUnproven && a.unproven < a.limit.now()/2 {
		return false
	}
	a.decide(from, true)
	return true
}

// admit implements quic.Transport.ConnContext.
func (a *admission) admit(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	ctx, err := a.await(ctx, info.RemoteAddr.(sender), info.AddrVerified)
	if err != nil {
		a.replies.await(a.closed)
	}
	return ctx, err
}

// await waits for a place.
func (a *admission) await(ctx context.Context, s sender, proven bool) (context.Context, error) {
	timeout := time.NewTimer(time.Until(s.arrived.Add(placeWithin)))
	defer timeout.Stop()
	for {
		admitted, err := a.tryAdmit(ctx, s, proven)
		if err != nil || admitted != nil {
			return admitted, err
		}
		select {
		case <-a.freed:
		case <-timeout.C:
			return nil, a.refuse(addrOf(s))
		case <-a.closed:
			return nil, net.ErrClosed
		}
	}
}

// tryAdmit returns neither a context nor an error where there is no place.
func (a *admission) tryAdmit(ctx context.Context, s sender, proven bool) (context.Context, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	from, n := addrOf(s), a.limit.now()
	if d, ok := a.decidedFor(s); ok && !d.prove {
		return nil, errTooMany
	}
	if a.from[from] >= min(fromProven, n/2) {
		a.decide(from, false)
		return nil, errTooMany
	}
	if a.total >= n {
		return nil, nil
	}
	a.count(from, proven, 1)
	end := sync.OnceFunc(func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.count(from, proven, -1)
		select {
		case a.freed <- struct{}{}:
		default:
		}
	})
	context.AfterFunc(ctx, end)
	return context.WithValue(ctx, admissionKey{}, end), nil
}

func (a *admission) refuse(from netip.Addr) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.decide(from, false)
	return errTooMany
}

// decidedFor returns the decision that stands for a packet.
func (a *admission) decidedFor(s sender) (decision, bool) {
	d, ok := a.decided[addrOf(s)]
	return d, ok && s.arrived.Before(d.until)
}

// decide decides about what arrives from an address. The lock is held.
func (a *admission) decide(from netip.Addr, prove bool) {
	now := time.Now()
	if now.Sub(a.lastDecided) > handshakeTimeout {
		clear(a.decided)
	}
	stands := provesFor
	if !prove {
		stands = refusedFor
		a.refused++
	}
	a.decided[from], a.lastDecided = decision{prove, now.Add(stands)}, now
}

// turnedAway returns how many dials were refused until now.
func (a *admission) turnedAway() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refused
}

func (a *admission) count(from netip.Addr, proven bool, n int) {
	a.total += n
	if !proven {
		a.unproven += n
	}
	if a.from[from] += n; a.from[from] == 0 {
		delete(a.from, from)
	}
}

// succeeded is called when a handshake has succeeded.
func (a *admission) succeeded(ctx context.Context) {
	a.mu.Lock()
	underWay := a.total
	a.mu.Unlock()
	a.limit.succeeded(underWay)
	ctx.Value(admissionKey{}).(func())()
}

// addrPortOf returns the address and port of a *net.UDPAddr or a sender.
func addrPortOf(a net.Addr) netip.AddrPort {
	return a.(interface{ AddrPort() netip.AddrPort }).AddrPort()
}

func addrOf(a net.Addr) netip.Addr { return addrPortOf(a).Addr().Unmap() }
