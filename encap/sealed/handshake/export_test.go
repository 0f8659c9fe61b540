package handshake

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"weft/peer"
)

// CloseIdle closes all connections, as if no packets had passed for long enough.
func (m *Manager) CloseIdle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.links {
		l.close(codeIdle)
		l.active = l.active.Add(-2 * m.timing.idle)
	}
}

// MayAnswer says whether the named peer would get an answer at a moment.
func (m *Manager) MayAnswer(name string, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mayAnswer(m.linkOf(name), now)
}

// DialInVain has a peer begin an epoch, and breaks off before the peer knows that this node
// has the keys.
func (m *Manager) DialInVain(ctx context.Context, peer *peer.Peer) error {
	conn, err := m.endpoint.dial(ctx, peer.Endpoint, peer.Key, protocol, handshakeTimeout)
	if err != nil {
		return err
	}
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	if _, err := stream.Write(hello{m.lanes, 7}.bytes()); err != nil {
		return err
	}
	if _, err := readHello(stream); err != nil {
		return err
	}
	return conn.CloseWithError(codeRefused, "")
}

// Narrow has the manager's link carry UDP payloads of so many bytes at the most, as the
// kernel does where it may not cut packets into fragments.
func Narrow(payload int) func(*Manager) {
	return func(m *Manager) { m.endpoint.conn.socket = narrow{m.endpoint.conn.socket, payload} }
}

type narrow struct {
	Socket
	payload int
}

func (n narrow) WriteTo(payload []byte, to netip.AddrPort) error {
	if len(payload) > n.payload {
		return fmt.Errorf("send a datagram to %s: %w", to, unix.EMSGSIZE)
	}
	return n.Socket.WriteTo(payload, to)
}

// WhenUsed has do called when the manager sends, sealed with new keys, what has waited for them.
func WhenUsed(do func()) func(*Manager) {
	return func(m *Manager) { m.endpoint.conn.socket = whenUsed{m.endpoint.conn.socket, do} }
}

type whenUsed struct {
	Socket
	do func()
}

func (w whenUsed) WriteTo(payload []byte, to netip.AddrPort) error {
	if payload[0] < 0x40 { // of no QUIC packet
		w.do()
	}
	return w.Socket.WriteTo(payload, to)
}

// Explain returns what weft says of an error of a handshake with node2.
func (m *Manager) Explain(err error) string {
	to := netip.MustParseAddrPort("192.168.0.2:9338")
	return m.endpoint.explain(&peer.Peer{Name: "node2"}, to, err).Error()
}

// The codes by which an end closes a connection.
const (
	CodeBusy    = codeBusy
	CodeRefused = codeRefused
	CodeGone    = codeGone
)

// Proofs has proofs made again after renew, and stand for lapse at the most.
func Proofs(renew, lapse time.Duration) func(*Manager) {
	return func(m *Manager) { m.proofs.renew, m.proofs.lapse, m.proofs.perPeer = renew, lapse, rate.Inf }
}

// WithoutProofs has a manager be as those that knew no further addresses.
func WithoutProofs(m *Manager) { m.endpoint.protocols = []string{protocol} }

// TriedClaims returns how many claims were proven or refuted.
func (m *Manager) TriedClaims() (n int) {
	m.proofs.mu.Lock()
	defer m.proofs.mu.Unlock()
	for _, o := range m.proofs.claims {
		if o.failures > 0 || !o.proven.IsZero() {
			n++
		}
	}
	return n
}

// Claims are what peers claim, without dials, in a time of their own.
type Claims struct {
	Dials   int
	Logged  []string                          // the names of peers
	Answers map[netip.Addr][]peer.Fingerprint // who shows its key where

	proofs *proofs
	now    time.Time
}

// NewClaims returns no claims.
func NewClaims() *Claims { return &Claims{proofs: newProofs(), now: time.Now()} }

// Proven returns what is proven.
func (c *Claims) Proven() map[netip.Addr]peer.Fingerprint { return c.proofs.proven() }

// Agree has keys be agreed with a peer.
func (c *Claims) Agree(peer *peer.Peer) { c.proofs.soon(peer.Key, peer.Claimed, c.now) }

// Pass lets time pass, and has all dials end that are due with the claims of these peers: they
// fail where the peer does not answer.
func (c *Claims) Pass(d time.Duration, peers ...*peer.Peer) {
	c.now = c.now.Add(d)
	c.proofs.set(peers, func(netip.Addr) bool { return true }, c.now)
	for {
		claim, to, wait := c.proofs.next(c.now)
		if wait != 0 {
			return
		}
		c.Dials++
		err := context.DeadlineExceeded
		if slices.Contains(c.Answers[claim.addr], claim.key) {
			err = nil
		}
		if name := c.proofs.done(claim, to, err, c.now); name != "" {
			c.Logged = append(c.Logged, name)
		}
	}
}
