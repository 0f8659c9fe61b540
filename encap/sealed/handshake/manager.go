// Package handshake agrees on data keys with the other nodes: over QUIC (RFC 9000), on
// the port that datagrams arrive at, with TLS 1.3, hybrid post-quantum key exchange, and
// the keys of both nodes pinned. docs/SECURITY.md says what that is good for.
//
// A connection makes one epoch. While packets pass, it stays open to tell whether the
// other node lives; new keys come from a new connection.
package handshake

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"weft/encap"
	"weft/encap/sealed"
	"weft/internal/nodekey"
	"weft/router/drop"
)

// What is not configurable, since nobody could know better values.
const (
	// patience is how long a handshake may be without an answer, and the exchange after it.
	patience = 3 * time.Second

	// silence is after how long without an answer a node is unreachable; it is asked for a
	// sign of life every keepAlive.
	silence   = 6 * time.Second
	keepAlive = 2 * time.Second

	// mostAnswers is how many handshakes of one peer may be answered at a time.
	mostAnswers = 2
)

// timing is how long things last. Tests have no hour.
type timing struct {
	// idle is after how long without packets a connection is closed. Its keys live on.
	idle time.Duration

	// overlap is for how long an epoch that was replaced is still received from.
	overlap time.Duration

	// lifetime is after how long keys are replaced if packets pass. Unused ones are
	// forgotten after twice as long.
	lifetime time.Duration

	// tick is how often it is looked whether something is due, while there are keys.
	tick time.Duration
}

var usual = timing{idle: time.Minute, overlap: 10 * time.Second, lifetime: time.Hour, tick: time.Second}

// Manager agrees on keys with peers. Its methods may be called from several goroutines.
type Manager struct {
	certificate tls.Certificate
	self        encap.Fingerprint
	peers       *sealed.Peers
	lanes       int
	conn        *packetConn
	transport   *quic.Transport
	config      *quic.Config
	log         *slog.Logger
	admission   admission
	timing      timing
	begun       chan struct{} // receives after an epoch has begun

	// Followed receives peers that have moved, once keys are agreed with them where they
	// are now.
	Followed chan sealed.Move

	expected atomic.Pointer[map[netip.Addr]struct{}] // where QUIC packets may come from

	mu      sync.Mutex                  // guards what follows
	links   map[encap.Fingerprint]*link // nil when Run has ended
	changed chan struct{}               // closed when a handshake has ended or the peers change, and replaced
	counts  Counts
}

// Counts is what has happened.
type Counts struct {
	Agreed      uint64 // epochs begun
	Failed      uint64 // attempts of this node that came to nothing
	Unreachable uint64 // times that a node stopped answering
}

// New returns a manager for the node that has key, and so many lanes. It sends through
// socket, which is bound to local, and is given by Receive what the lanes receive.
func New(key ed25519.PrivateKey, lanes int, peers *sealed.Peers, socket Socket, local netip.AddrPort, log *slog.Logger) (*Manager, error) {
	certificate, err := newCertificate(key)
	if err != nil {
		return nil, err
	}
	m := &Manager{
		certificate: certificate,
		self:        nodekey.FingerprintOf(key.Public().(ed25519.PublicKey)),
		peers:       peers,
		lanes:       lanes,
		conn:        newPacketConn(socket, local),
		log:         log,
		timing:      usual,
		links:       map[encap.Fingerprint]*link{},
		changed:     make(chan struct{}),
		Followed:    make(chan sealed.Move, 64),
		begun:       make(chan struct{}, 1),
	}
	m.expect()
	m.transport = &quic.Transport{
		Conn:                             m.conn,
		ConnectionIDLength:               8,
		DisableVersionNegotiationPackets: true,
		VerifySourceAddress:              m.admission.verifyAddress,
		ConnContext:                      m.admission.admit,
	}
	m.config = &quic.Config{
		Versions:                []quic.Version{quic.Version1},
		HandshakeIdleTimeout:    patience,
		MaxIdleTimeout:          silence,
		KeepAlivePeriod:         keepAlive,
		MaxIncomingStreams:      1,
		MaxIncomingUniStreams:   -1,
		InitialPacketSize:       packetSize,
		DisablePathMTUDiscovery: true,
		// A hello is some bytes. Windows of this size cannot be made to cost memory.
		InitialStreamReceiveWindow:     1 << 10,
		MaxStreamReceiveWindow:         1 << 10,
		InitialConnectionReceiveWindow: 1 << 10,
		MaxConnectionReceiveWindow:     1 << 10,
	}
	return m, nil
}

// Update makes the peers those of a State, until Run has ended.
func (m *Manager) Update(all []*encap.Peer) {
	m.mu.Lock() // before the peers are there, and wish for keys
	defer m.mu.Unlock()
	if m.links == nil {
		return
	}
	come, gone := m.peers.Set(all)
	for _, peer := range gone {
		l := m.links[peer.Key]
		delete(m.links, peer.Key)
		m.stopDialing(l)
		l.close(codeGone)
	}
	for _, peer := range come {
		m.links[peer.Key] = &link{peer: peer}
	}
	for _, p := range all {
		m.place(m.links[p.Key], p)
	}
	m.expect()
	m.tellChanged()
}

// place notes where a peer is. That it did not answer at another endpoint says nothing about
// this one. The manager's lock is held.
func (m *Manager) place(l *link, node *encap.Peer) {
	before := l.node
	l.node = node
	if before != nil && before.Endpoint == node.Endpoint && before.Listed == node.Listed {
		return
	}
	l.failures, l.retry = 0, time.Time{}
	e := l.peer.Sending()
	switch {
	case l.dial != nil && l.dial.moved == nil: // to the other one
		m.stopDialing(l)
		m.dialSoon(l)
	case e != nil && e.At() != node.Endpoint.Addr(): // it has not answered there yet
		m.dialSoon(l)
	}
}

// Receive implements sealed.Handshakes: nobody who is not where a peer is gets an answer.
func (m *Manager) Receive(payload []byte, from netip.AddrPort) drop.Reason {
	if _, ok := (*m.expected.Load())[from.Addr()]; !ok {
		return drop.UnknownPeer
	}
	return m.conn.receive(payload, from)
}

// expect makes the addresses that packets are taken from those of the endpoints, of where
// the list has peers that roam, and of where peers may have roamed to. The lock is held.
func (m *Manager) expect() {
	addrs := make(map[netip.Addr]struct{}, len(m.links))
	for _, l := range m.links {
		addrs[l.node.Endpoint.Addr()] = struct{}{}
		if l.node.Listed.IsValid() {
			addrs[l.node.Listed.Addr()] = struct{}{}
		}
		if l.dial != nil && l.dial.moved != nil {
			addrs[l.dial.moved.Addr] = struct{}{}
		}
	}
	m.expected.Store(&addrs)
}

// Run agrees on keys until ctx is done.
func (m *Manager) Run(ctx context.Context) error {
	listener, err := m.transport.Listen(tlsConfig(m.certificate, m.known), m.config)
	if err != nil {
		return fmt.Errorf("listen for handshakes: %w", err)
	}
	var tasks sync.WaitGroup
	tasks.Go(func() { m.accept(ctx, listener) })
	tasks.Go(func() { m.watch(ctx) })
	<-ctx.Done()
	m.closeAll()
	err = errors.Join(listener.Close(), m.transport.Close(), m.conn.Close())
	tasks.Wait()
	if err != nil {
		return fmt.Errorf("end handshakes: %w", err)
	}
	return nil
}

// known decides about a node that wants to agree on keys.
func (m *Manager) known(key encap.Fingerprint) error {
	if m.peers.Find(key) == nil {
		return fmt.Errorf("no node in the list has the key %s", key)
	}
	return nil
}

// watch does what is due.
func (m *Manager) watch(ctx context.Context) {
	var tick <-chan time.Time // nil while there are no keys: to wake up each second is not free
	for {
		select {
		case <-ctx.Done():
			return
		case peer := <-m.peers.Wanted:
			m.want(peer)
		case moved := <-m.peers.Moved:
			m.look(moved)
		case <-m.begun:
			if tick == nil {
				tick = time.After(m.timing.tick)
			}
		case now := <-tick:
			tick = nil
			if m.tick(now) {
				tick = time.After(m.timing.tick)
			}
		}
	}
}

func (m *Manager) want(peer *sealed.Peer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.links[peer.Key]; l != nil && l.peer == peer {
		l.wanted = true
		m.dialSoon(l)
	}
}

// tick looks at the peers with whom there are keys: of thousands a few, as a rule. It reports
// whether there are any.
func (m *Manager) tick(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	keyed := m.peers.Keyed()
	for peer := range keyed {
		l := m.links[peer.Key]
		if l == nil || l.peer != peer { // it is gone
			continue
		}
		l.observe(now)
		l.endOld(now, m.timing.overlap)
		switch using := l.peer.Sending(); {
		case using == nil:
		case l.conn != nil && now.Sub(l.active) > m.timing.idle:
			l.close(codeIdle)
		case now.Sub(using.Began()) > 2*m.timing.lifetime:
			using.End()
		case now.Sub(l.active) > m.timing.idle:
		case l.conn == nil, using.Worn(), now.Sub(using.Began()) > m.lifetime(l):
			m.dialSoon(l)
		}
	}
	return len(keyed) > 0
}

// lifetime is after how long this node replaces the keys with a peer: one of the two is
// earlier.
func (m *Manager) lifetime(l *link) time.Duration {
	if less(m.self, l.peer.Key) {
		return m.timing.lifetime
	}
	return m.timing.lifetime + m.timing.lifetime/10
}

// accept agrees on keys with whoever has dialed and is known.
func (m *Manager) accept(ctx context.Context, listener *quic.Listener) {
	for {
		conn, err := listener.Accept(ctx)
		if err != nil {
			return // the listener is closed
		}
		m.admission.settle(conn.Context())
		go m.acceptOne(conn)
	}
}

func (m *Manager) acceptOne(conn *quic.Conn) {
	key, err := peerFingerprint(conn.ConnectionState().TLS)
	if err != nil {
		_ = conn.CloseWithError(codeRefused, "")
		return
	}
	m.mu.Lock()
	l := m.links[key]
	if l == nil || l.dialWins(m.self) || l.answering >= mostAnswers {
		m.mu.Unlock()
		_ = conn.CloseWithError(codeBusy, "")
		return
	}
	m.stopDialing(l)
	l.answering++
	node, from := l.node, addrOf(conn.RemoteAddr())
	returned := l.returned(from)
	m.mu.Unlock()

	epoch, err := m.answer(l, conn)
	if err != nil {
		_ = conn.CloseWithError(codeRefused, "")
	}
	m.answered(l, err)
	if err == nil {
		m.agreed(l, conn, epoch)
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
	m.log.Debug("a handshake failed", "peer", l.node.Name, "error", err)
	m.tellChanged()
	if l.wanted && m.links[l.peer.Key] == l {
		m.dialSoon(l)
	}
}

func (m *Manager) closeAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.links {
		m.stopDialing(l)
		l.close(codeGone)
	}
	m.links = nil // what is still under way leads nowhere, and nothing is begun any more
	m.tellChanged()
}
