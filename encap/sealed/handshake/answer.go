package handshake

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/quic-go/quic-go"

	"weft/internal/nodekey"
	"weft/peer"
)

// accept agrees on keys with peers that dial.
func (m *Manager) accept(ctx context.Context) {
	for {
		conn, err := m.endpoint.listener.Accept(ctx)
		if err != nil {
			return // the listener is closed
		}
		m.endpoint.admission.succeeded(conn.Context())
		m.tasks.Go(func() { m.acceptOne(conn) })
	}
}

func (m *Manager) acceptOne(conn *quic.Conn) {
	key, err := nodekey.PeerFingerprint(conn.ConnectionState().TLS)
	if err != nil {
		_ = conn.CloseWithError(codeRefused, "")
		return
	}
	if conn.ConnectionState().TLS.NegotiatedProtocol == proofProtocol { // now the dialer knows this node's key
		_ = conn.CloseWithError(codeIdle, "")
		return
	}
	m.mu.Lock()
	l := m.links[key]
	if l == nil || l.dialWins(m.endpoint.self) || l.answering >= mostAnswers {
		m.mu.Unlock()
		_ = conn.CloseWithError(codeBusy, "")
		return
	}
	m.stopDialing(l)
	l.answering++
	node, from := l.node, addrOf(conn.RemoteAddr())
	returned := l.returned(from)
	m.mu.Unlock()

	err = m.answer(l, conn)
	if err != nil {
		_ = conn.CloseWithError(codeRefused, "")
	}
	m.answered(l, err)
	if err == nil {
		m.agreed(l, conn)
		if returned {
			m.follow(node, from)
		}
	}
}

// answered has this node dial where the peer's handshake came to nothing.
func (m *Manager) answered(l *link, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l.answering--
	if err == nil {
		return
	}
	m.log.Debug("handshake failed", "peer", l.node.Name, "error", err)
	m.notifyChanged()
	if l.wanted && m.links[l.peer.Key] == l {
		m.dialSoon(l)
	}
}

// known decides about a node that wants to agree on keys. The operator learns of a refusal, as
// the list may have another key for the node that is there.
func (m *Manager) known(key peer.Fingerprint, from netip.Addr) error {
	if m.peers.Find(key) != nil {
		return nil
	}
	err := fmt.Errorf("no node in the list has the key %s", key)
	if m.refusals.Allow() {
		m.log.Warn("handshake refused", "from", from, "peer", m.nameAt(from), "error", err)
	}
	return err
}

// nameAt returns the name of the peer at an address, or nothing.
func (m *Manager) nameAt(addr netip.Addr) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.links {
		if l.node.Endpoint.Addr() == addr {
			return l.node.Name
		}
	}
	return ""
}
