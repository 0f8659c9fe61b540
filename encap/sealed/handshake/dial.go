package handshake

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"weft/encap/sealed"
	"weft/internal/events"
	"weft/peer"
)

// dialSoon dials unless a handshake is under way: when its turn comes, and not before the time to
// retry has come. The manager's lock is held.
func (m *Manager) dialSoon(l *link) {
	switch {
	case l.answering > 0:
	case l.dial == nil:
		m.start(l, new(dial), time.Until(l.retry))
	case l.wanted && l.dial.urgency == ordinary && m.turns.isWaiting(l.dial):
		m.turns.add(l.dial, urgent)
	}
}

// start dials after a while, when its turn comes. The manager's lock is held.
func (m *Manager) start(l *link, d *dial, wait time.Duration) {
	d.link = l
	d.Context, d.stop = context.WithCancel(context.Background())
	l.dial = d
	if wait <= 0 {
		m.queue(d)
		return
	}
	time.AfterFunc(wait, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if l.dial == d { // it was not given up
			m.queue(d)
		}
	})
}

// queue has a dial wait for its turn. The manager's lock is held.
func (m *Manager) queue(d *dial) {
	u := ordinary
	switch {
	case d.moved != nil || d.link.wanted && d.link.failures == 0:
		u = urgent
	case d.link.failures > 0:
		u = doubtful
	}
	m.turns.add(d, u)
	m.dialNext()
}

// dialNext starts the dials whose turn it is. The manager's lock is held.
func (m *Manager) dialNext() {
	for d := m.turns.next(); d != nil; d = m.turns.next() {
		m.tasks.Go(func() { m.dial(d) })
	}
}

// dialed gives the place of a dial to the next.
func (m *Manager) dialed(d *dial, succeeded bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turns.done(d, succeeded)
	m.dialNext()
}

// look agrees on keys with a peer where authentic datagrams of it have come from.
func (m *Manager) look(moved sealed.Move) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.links[moved.Peer.Key]
	if l == nil {
		return
	}
	since := time.Since(l.looked)
	if l.answering > 0 || l.node.Endpoint.Addr() == moved.Addr || since < l.lookAgain {
		return // or later: the next datagram reports it again
	}
	// Each move costs a handshake and a table: a peer that keeps roaming waits longer each time.
	l.lookAgain = min(2*l.lookAgain, time.Minute)
	if since > 10*time.Minute || l.lookAgain == 0 {
		l.lookAgain = simultaneousOpenWindow
	}
	l.looked = time.Now()
	m.stopDialing(l) // to where the peer may not be any more
	m.start(l, &dial{moved: &moved}, 0)
	m.expect()
}

// stopDialing gives up the attempt that is under way. The manager's lock is held.
func (m *Manager) stopDialing(l *link) {
	if d := l.dial; d != nil {
		d.stop()
		l.dial = nil
		m.turns.remove(d)
		if d.moved != nil {
			m.expect()
		}
	}
}

// dial agrees on keys, unless it is stopped before.
func (m *Manager) dial(d *dial) {
	defer d.stop()
	l := d.link
	m.mu.Lock()
	d.began = time.Now()
	l.tried = d.began
	to, node := l.target(), l.node
	if d.moved != nil {
		to = netip.AddrPortFrom(d.moved.Addr, to.Port())
	}
	d.to = to
	timeout := min(handshakeTimeout<<min(l.failures, 10), longestHandshakeTimeout)
	m.mu.Unlock()

	conn, err := m.connect(d, timeout)
	m.dialed(d, err == nil)
	if err != nil {
		m.failed(d, err)
		return
	}
	m.agreed(l, conn)
	m.follow(node, to.Addr())
}

// connect is the part of a dial that the other node takes part in.
func (m *Manager) connect(d *dial, timeout time.Duration) (*quic.Conn, error) {
	conn, err := m.endpoint.dial(d, d.to, d.link.peer.Key, protocol, timeout)
	if err != nil {
		return nil, err
	}
	if err := m.offer(d.link, conn); err != nil {
		_ = conn.CloseWithError(codeRefused, "")
		return nil, err
	}
	return conn, nil
}

// follow says that keys were agreed with a peer at an address, if that is not its endpoint's.
func (m *Manager) follow(node *peer.Peer, addr netip.Addr) {
	if addr == node.Endpoint.Addr() {
		return
	}
	select {
	case m.Followed <- sealed.Move{Peer: node, Addr: addr}:
	case <-m.endpoint.conn.closed: // the daemon may have stopped reading
	}
}

// agreed makes a connection that has keys the link's. If Run has ended meanwhile, only the connection
// ends: both ends may seal with the keys by now, and the next process gets them. The keys of a peer
// that is gone have ended with it.
func (m *Manager) agreed(l *link, conn *quic.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.links[l.peer.Key] != l {
		_ = conn.CloseWithError(codeGone, "")
		return
	}
	m.stopDialing(l)
	if l.conn == nil { // with one, the peer has answered all the time
		m.proofs.soon(l.peer.Key, l.node.Claimed, time.Now())
	}
	l.close(codeReplaced)
	l.conn = conn
	l.delivery.known = false // the peer may have been restarted
	l.handshakeDone(true)
	m.found(l)
	l.failures, l.refusals, l.retry, l.lastErr, l.overdue = 0, 0, time.Time{}, nil, false
	l.rekey = m.timing.rekey + rand.N(m.timing.rekeySpread)
	l.active = time.Now()
	l.heard = l.active
	m.counts.Agreed++
	m.log.Log(context.Background(), events.LevelQuiet, "data keys agreed", "peer", l.node.Name)
	m.notifyChanged()
	m.tasks.Go(func() { m.attend(l, conn) })
}

// failed counts and reports a failure, and lets time pass before the next attempt.
func (m *Manager) failed(d *dial, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := d.link
	if l.dial != d { // the peer's own dial has gone on in its place, or the peer is gone
		return
	}
	l.dial = nil
	m.notifyChanged()
	if d.moved != nil { // the peer is not there; the endpoint is as good as before
		m.expect()
		if l.wanted {
			m.dialSoon(l)
		}
		return
	}
	if mayRetry(err) {
		l.refusals++
		l.retry = time.Now().Add(backoff(simultaneousOpenWindow, lastBackoff, l.refusals))
		m.counts.Refused++
		if l.wanted { // what waits goes on waiting
			m.dialSoon(l)
		}
		return
	}
	l.failures++
	l.retry = time.Now().Add(backoff(firstBackoff, lastBackoff, l.failures))
	m.counts.Failed++
	l.handshakeDone(false)
	l.lastErr = m.endpoint.explain(l.node, d.to, err)
	if l.conn == nil {
		m.lose(l)
	}
}

// notifyChanged wakes callers that wait for a handshake to end, or for its peer to go.
func (m *Manager) notifyChanged() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// mayRetry reports whether the other node has refused for now only: its own dial is to go
// on, or it is given more handshakes at once than it takes, or was so slow that its own proof of
// this node's address has expired.
func mayRetry(err error) bool {
	if busy, ok := errors.AsType[*quic.ApplicationError](err); ok {
		return busy.Remote && busy.ErrorCode == codeBusy
	}
	refused, ok := errors.AsType[*quic.TransportError](err)
	return ok && refused.Remote && (refused.ErrorCode == quic.ConnectionRefused || refused.ErrorCode == quic.InvalidToken)
}

// attend waits until a connection ends.
func (m *Manager) attend(l *link, conn *quic.Conn) {
	m.converse(l, conn)
	<-conn.Context().Done()
	cause := context.Cause(conn.Context())
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.conn != conn {
		return
	}
	l.conn = nil
	l.observe(time.Now()) // what arrived before counts as the connection's
	l.received = time.Time{}
	switch closed, ok := errors.AsType[*quic.ApplicationError](cause); {
	case !ok:
		l.heard = later(l.heard, time.Now().Add(-silence))
		l.lastErr = m.endpoint.explain(l.node, l.node.Endpoint, cause)
		m.lose(l)
	case closed.ErrorCode == codeIdle:
		l.heard = time.Now()
		l.active = time.Time{} // here too, until packets pass again
	default:
		l.heard = time.Now()
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// lose notes that a node does not answer, unless packets of it arrive. The manager's lock is held.
func (m *Manager) lose(l *link) {
	if l.unreachable || time.Since(l.received) < silence {
		return
	}
	l.unreachable = true
	m.lost[l] = struct{}{}
	m.stir()
	m.counts.Unreachable++
	m.log.Warn("peer unreachable", "peer", l.node.Name, "endpoint", l.node.Endpoint, "error", l.lastErr)
}

// found notes that a node answers, and reports whether it did not before. The manager's lock
// is held.
func (m *Manager) found(l *link) bool {
	if !l.unreachable {
		return false
	}
	l.unreachable = false
	delete(m.lost, l)
	m.log.Info("peer reachable again", "peer", l.node.Name)
	return true
}

// stir has tick look whether something is due.
func (m *Manager) stir() { signal(m.begun) }

// signal has a channel receive, unless it has something to receive already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
