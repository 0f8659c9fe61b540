package handshake

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"weft/drop"
)

// Socket sends from the port that all nodes listen on.
type Socket interface {
	WriteTo(payload []byte, to netip.AddrPort) error
}

const (
	// maxQueued is how many QUIC packets may wait for their turn: some for each of
	// each of many nodes that start at once. What does not fit, QUIC sends again.
	maxQueued = 1024

	// packetSize is how long QUIC packets are at the most, in bytes: what every path of
	// QUIC carries (RFC 9000 §14). With UDP and IP it fits an underlay with an MTU of 1,280,
	// the smallest of IPv6, as tunnels have it. Nothing longer is ever tried, so that
	// nothing that an ICMP error says of the path counts.
	packetSize = 1200

	// maxPacket is the longest QUIC packet that is taken, in bytes.
	maxPacket = 1500
)

// packetConn is the weft port as QUIC sees it: lanes hand it what is not data.
type packetConn struct {
	socket  Socket
	local   *net.UDPAddr
	limit   *limit   // learns how long packets wait
	replies *replies // learns which were sent
	queue   chan *queued
	spare   sync.Pool
	closed  chan struct{}
	once    sync.Once

	mu      sync.Mutex
	refused map[netip.Addr]error // why the kernel refused the last packet to an address
}

type queued struct {
	bytes [maxPacket]byte
	n     int
	from  netip.AddrPort
	at    time.Time
}

// sender is where a packet came from, and when. QUIC hands it on to admission.
type sender struct {
	*net.UDPAddr
	arrived time.Time
}

func newPacketConn(socket Socket, local netip.AddrPort, limit *limit) *packetConn {
	return &packetConn{
		socket:  socket,
		local:   net.UDPAddrFromAddrPort(local),
		limit:   limit,
		replies: newReplies(),
		queue:   make(chan *queued, maxQueued),
		spare:   sync.Pool{New: func() any { return new(queued) }},
		closed:  make(chan struct{}),

		refused: map[netip.Addr]error{},
	}
}

// receive queues a copy of a packet. It is called by lanes, and never waits.
func (c *packetConn) receive(payload []byte, from netip.AddrPort) drop.Reason {
	if len(payload) > maxPacket {
		return drop.BadHeader
	}
	if len(c.queue) == cap(c.queue) {
		return drop.HandshakesFull
	}
	q := c.spare.Get().(*queued)
	q.n, q.from, q.at = copy(q.bytes[:], payload), from, time.Now()
	select {
	case c.queue <- q:
		return drop.None
	default:
		c.spare.Put(q)
		return drop.HandshakesFull
	}
}

// ReadFrom implements net.PacketConn.
func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case q := <-c.queue:
		defer c.spare.Put(q)
		c.limit.read(q.at)
		return copy(b, q.bytes[:q.n]), sender{net.UDPAddrFromAddrPort(q.from), q.at}, nil
	case <-c.closed:
		return 0, nil, net.ErrClosed
	}
}

// WriteTo implements net.PacketConn. QUIC ends a connection whose packets are too long for
// the link, as it can send none. Any other failure may pass: then the packet is as good as
// lost, and QUIC sends it again.
func (c *packetConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	to := addrPortOf(addr)
	err := c.socket.WriteTo(b, to)
	c.replies.sent(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		delete(c.refused, to.Addr())
		return len(b), nil
	}
	c.refused[to.Addr()] = err
	if errors.Is(err, unix.EMSGSIZE) {
		return 0, err
	}
	return len(b), nil
}

// refusal returns why the kernel refused the last packet to an address, or nil.
func (c *packetConn) refusal(to netip.Addr) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused[to]
}

// Close implements net.PacketConn.
func (c *packetConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// LocalAddr implements net.PacketConn.
func (c *packetConn) LocalAddr() net.Addr { return c.local }

// SetReadDeadline implements net.PacketConn: QUIC sets one to end its reading.
func (c *packetConn) SetReadDeadline(time.Time) error { return c.Close() }

// SetDeadline and SetWriteDeadline implement net.PacketConn; QUIC uses neither.
func (c *packetConn) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (c *packetConn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// SetReadBuffer and SetWriteBuffer keep QUIC from a warning: the socket has large ones.
func (c *packetConn) SetReadBuffer(int) error  { return nil }
func (c *packetConn) SetWriteBuffer(int) error { return nil }
