package handshake

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"

	"weft/internal/nodekey"
	"weft/peer"
)

// endpoint is this node's end of QUIC connections. It decides which handshakes of other nodes
// begin; the manager decides about their keys.
type endpoint struct {
	self        peer.Fingerprint
	certificate tls.Certificate
	conn        *packetConn
	transport   *quic.Transport
	config      *quic.Config
	limit       *limit
	admission   *admission
	protocols   []string       // that it answers
	listener    *quic.Listener // once listen has succeeded
}

func newEndpoint(key ed25519.PrivateKey, socket Socket, local netip.AddrPort) (*endpoint, error) {
	certificate, err := nodekey.Certificate(key)
	if err != nil {
		return nil, err
	}
	limit := new(limit)
	conn := newPacketConn(socket, local, limit)
	admission := newAdmission(limit, conn.replies)
	return &endpoint{
		self:        nodekey.FingerprintOf(key.Public().(ed25519.PublicKey)),
		certificate: certificate,
		conn:        conn,
		limit:       limit,
		admission:   admission,
		protocols:   []string{proofProtocol, protocol},
		transport: &quic.Transport{
			Conn:                             conn,
			ConnectionIDLength:               8,
			DisableVersionNegotiationPackets: true,
			VerifySourceAddress:              admission.verifyAddress,
			ConnContext:                      admission.admit,
		},
		config: &quic.Config{
			Versions:                []quic.Version{quic.Version1},
			HandshakeIdleTimeout:    handshakeTimeout,
			MaxIdleTimeout:          silence,
			KeepAlivePeriod:         keepAlive,
			MaxIncomingStreams:      1,
			MaxIncomingUniStreams:   -1,
			InitialPacketSize:       packetSize,
			EnableDatagrams:         true,
			DisablePathMTUDiscovery: true,
			// A hello is some bytes. Windows of this size cannot be made to cost memory.
			InitialStreamReceiveWindow:     1 << 10,
			MaxStreamReceiveWindow:         1 << 10,
			InitialConnectionReceiveWindow: 1 << 10,
			MaxConnectionReceiveWindow:     1 << 10,
		},
	}, nil
}

// listen begins to take connections of nodes whose keys are known. From is the address that
// shows a key.
func (e *endpoint) listen(known func(key peer.Fingerprint, from netip.Addr) error) (err error) {
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			from := addrOf(hello.Conn.RemoteAddr())
			return nodekey.TLS(e.certificate, e.protocols, func(key peer.Fingerprint) error { return known(key, from) }), nil
		},
	}
	if e.listener, err = e.transport.Listen(config, e.config); err != nil {
		return fmt.Errorf("listen for handshakes: %w", err)
	}
	return nil
}

// dial connects to the node that has a key, to speak a protocol with it. Timeout is how long the
// handshake may go without an answer.
func (e *endpoint) dial(ctx context.Context, to netip.AddrPort, key peer.Fingerprint, protocol string, timeout time.Duration) (*quic.Conn, error) {
	config := e.config.Clone()
	config.HandshakeIdleTimeout = timeout
	return e.transport.Dial(ctx, net.UDPAddrFromAddrPort(to), nodekey.TLS(e.certificate, []string{protocol}, pinned(key)), config)
}

// close ends what listen began, and all connections.
func (e *endpoint) close() error {
	e.admission.close()
	if err := errors.Join(e.listener.Close(), e.transport.Close(), e.conn.Close()); err != nil {
		return fmt.Errorf("end handshakes: %w", err)
	}
	return nil
}

// pinned accepts one key only.
func pinned(key peer.Fingerprint) func(shown peer.Fingerprint) error {
	return func(shown peer.Fingerprint) error {
		if shown != key {
			return keyError{shown}
		}
		return nil
	}
}
