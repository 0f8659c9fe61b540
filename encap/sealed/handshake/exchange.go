package handshake

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/quic-go/quic-go"

	"weft/encap/sealed"
)

// hello is all that two nodes exchange beside their keys: the number by which datagrams
// must name the session, and how many lanes send them. The dialer speaks first, the
// acceptor answers, and the dialer ends the stream when it has begun to use the keys.
type hello struct {
	lanes   int
	session uint32
}

const (
	helloLen     = 6
	helloVersion = 1
)

func (h hello) bytes() []byte {
	return binary.BigEndian.AppendUint32([]byte{helloVersion, byte(h.lanes)}, h.session)
}

func readHello(r io.Reader) (hello, error) {
	var b [helloLen]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return hello{}, fmt.Errorf("read the other node's session: %w", err)
	}
	if b[0] != helloVersion {
		return hello{}, fmt.Errorf("the other node speaks version %d of the key exchange, this one %d; run the same version of weft on both", b[0], helloVersion)
	}
	h := hello{lanes: int(b[1]), session: binary.BigEndian.Uint32(b[2:])}
	if h.lanes == 0 || h.lanes > sealed.MaxLanes || h.session > sealed.MaxSession {
		return hello{}, fmt.Errorf("the other node names %d lanes and session %d, which is not valid", h.lanes, h.session)
	}
	return h, nil
}

// offer is the dialer's part: it leaves an epoch that is sealed with, and of which both ends have the
// keys.
func (m *Manager) offer(l *link, conn *quic.Conn) error {
	stream, err := conn.OpenStream()
	if err != nil {
		return fmt.Errorf("open a stream: %w", err)
	}
	_ = stream.SetDeadline(time.Now().Add(handshakeTimeout))
	epoch, err := m.begin(l, conn, true)
	if err != nil {
		return err
	}
	if _, err := stream.Write(hello{m.lanes, epoch.Session()}.bytes()); err != nil {
		epoch.End()
		return fmt.Errorf("send this node's session: %w", err)
	}
	theirs, err := readHello(stream)
	if err != nil {
		epoch.End()
		return err
	}
	epoch.Expect(theirs.lanes, theirs.session)
	m.use(l, epoch)
	_ = stream.Close() // if the connection has ended by now, the link will notice
	return nil
}

// answer is the acceptor's part. It seals with the new keys once it knows that the dialer
// has them: by the end of the stream, or by the first datagram that was sealed with them. From its
// hello on the dialer may use them, so an epoch that comes to nothing after that is not ended at once,
// but like one that was replaced.
func (m *Manager) answer(l *link, conn *quic.Conn) error {
	ctx, cancel := context.WithTimeout(conn.Context(), handshakeTimeout)
	defer cancel()
	stream, err := conn.AcceptStream(ctx)
	if err != nil {
		return fmt.Errorf("accept a stream: %w", err)
	}
	_ = stream.SetDeadline(time.Now().Add(handshakeTimeout))
	theirs, err := readHello(stream)
	if err != nil {
		return err
	}
	epoch, err := m.begin(l, conn, false)
	if err != nil {
		return err
	}
	epoch.Expect(theirs.lanes, theirs.session)
	if _, err := stream.Write(hello{m.lanes, epoch.Session()}.bytes()); err != nil {
		return fmt.Errorf("send this node's session: %w", err)
	}
	if _, err := io.ReadFull(stream, make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("wait for the other node to have the keys: %w", err)
	}
	m.use(l, epoch)
	_ = stream.Close()
	return nil
}

// begin begins an epoch with a connection's keys, and has watch look after it.
func (m *Manager) begin(l *link, conn *quic.Conn, dialed bool) (*sealed.Epoch, error) {
	secrets, err := export(conn.ConnectionState().TLS, m.endpoint.self, l.peer.Key, dialed)
	if err != nil {
		return nil, err
	}
	epoch, err := l.peer.Begin(secrets, addrOf(conn.RemoteAddr()))
	if err != nil {
		return nil, fmt.Errorf("begin an epoch: %w", err)
	}
	m.stir()
	return epoch, nil
}

// use has what goes to the peer sealed with the epoch, and what has waited sent: to where
// the peer is now, which may have changed meanwhile.
func (m *Manager) use(l *link, epoch *sealed.Epoch) {
	l.using.Lock()
	defer l.using.Unlock()
	m.mu.Lock()
	to := l.node.Endpoint
	m.mu.Unlock()
	epoch.Use(func(datagram []byte) {
		_ = m.endpoint.conn.socket.WriteTo(datagram, to) // as on any way, packets may be lost
	})
}
