package handshake

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"weft/encap"
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

// DialInVain has a peer begin an epoch, and breaks off before the peer knows that this node
// has the keys.
func (m *Manager) DialInVain(ctx context.Context, peer *encap.Peer) error {
	pinned := (&link{peer: m.peers.Find(peer.Key)}).pinned
	conn, err := m.transport.Dial(ctx, net.UDPAddrFromAddrPort(peer.Endpoint), tlsConfig(m.certificate, pinned), m.config)
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
	return func(m *Manager) { m.conn.socket = narrow{m.conn.socket, payload} }
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

// Explain returns what weft says of an error of a handshake with node2.
func (m *Manager) Explain(err error) string {
	to := netip.MustParseAddrPort("192.168.0.2:9338")
	return m.explain(&link{node: &encap.Peer{Name: "node2", Endpoint: to}}, to, err).Error()
}

// The codes by which an end closes a connection.
const (
	CodeBusy    = codeBusy
	CodeRefused = codeRefused
	CodeGone    = codeGone
)
