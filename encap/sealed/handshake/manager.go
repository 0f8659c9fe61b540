// Package handshake agrees on data keys with the other nodes: over QUIC (RFC 9000), on
// the port that datagrams arrive at, with TLS 1.3, hybrid post-quantum key exchange, and
// the keys of both nodes pinned. docs/SECURITY.md says what that is good for.
//
// A connection makes one epoch. While packets pass, it stays open to detect whether the
// other node lives; new keys come from a new connection.
package handshake

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"weft/drop"
	"weft/encap/sealed"
	"weft/peer"
)

// These are not configurable: no operator could know better values.
const (
	// handshakeTimeout is how long a handshake, and the exchange after it, may go without an
	// answer. After each failure in a row a dial has twice the time, up to
	// longestHandshakeTimeout: the other node may be that slow.
	handshakeTimeout        = 3 * time.Second
	longestHandshakeTimeout = 12 * time.Second

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

	// rekey is after how long keys are replaced at the earliest if packets pass. Up to
	// rekeySpread is added, at random for each epoch and each end, so that nodes which
	// started together don't go on together.
	rekey, rekeySpread time.Duration

	// overdue is after how long unused keys are forgotten. Those of a peer that packets pass
	// with live on while handshakes fail, for limit at the most.
	overdue, limit time.Duration

	// probe is how often a peer that does not answer is tried though no packets are for it.
	probe time.Duration

	// tick is how often it is looked whether something is due, while there are keys, or
	// peers that do not answer.
	tick time.Duration
}

var usual = timing{
	idle: time.Minute, overlap: 10 * time.Second,
	rekey: 5 * time.Minute, rekeySpread: 3 * time.Minute, overdue: 10 * time.Minute, limit: KeyLimit,
	probe: time.Minute, tick: time.Second,
}

// KeyLimit is the age at which data keys end, if handshakes have failed until then.
const KeyLimit = 30 * time.Minute

// dialsPerTick is how many handshakes that no packet waits for are begun in a tick at the most.
// With 5,000 peers that lets each have new keys in less than the time between rekey and overdue.
const dialsPerTick = 64

// asksPerTick is how many peers are asked in a tick, at the most, how much has arrived: each
// peer every second if there are no more with traffic, or all of them by turns.
const asksPerTick = 64

// Manager agrees on keys with peers. Its methods may be called from several goroutines.
type Manager struct {
	*prover
	endpoint *endpoint
	peers    *sealed.Peers
	lanes    int
	log      *slog.Logger
	timing   timing
	refusals *rate.Limiter // of what is logged about strange keys
	begun    chan struct{} // receives when there is something to look after: see tick

	// Followed receives peers that roamed, once keys are agreed with them at their new
	// address.
	Followed chan sealed.Move

	// Runs reports whether datagrams go out in runs, unless they get lost so: see delivery.
	// Nil means never. It is set before Run.
	Runs func() bool

	// Answer answers a peer's inquiries: see Inquire. An empty answer is none. Nil means never. It is
	// set before Run, and called by one goroutine at a time.
	Answer func(from *peer.Peer, question []byte) []byte

	inquiries inquiries
	inquired  sync.Mutex    // held while a peer's inquiry is answered
	answers   *rate.Limiter // to all peers

	expected atomic.Pointer[map[netip.Addr]struct{}] // where QUIC packets may come from
	tasks    sync.WaitGroup                          // all that may begin or use an epoch

	mu      sync.Mutex                 // guards what follows
	links   map[peer.Fingerprint]*link // nil when Run has ended
	lost    map[*link]struct{}         // those that do not answer
	turns   turns                      // of this node's dials
	changed chan struct{}              // closed when a handshake has ended or the peers change, and replaced
	counts  Counts
}

// Counts is what has happened.
type Counts struct {
	Agreed      uint64 // epochs begun
	Failed      uint64 // attempts of this node that came to nothing
	Refused     uint64 // attempts of this node that a peer refused for now
	TurnedAway  uint64 // attempts of peers that this node refused for now
	Unreachable uint64 // times that a node stopped answering
}

// New returns a manager for the node that has key, and so many lanes. It sends through
// socket, which is bound to local, and is given by Receive what the lanes receive.
func New(key ed25519.PrivateKey, lanes int, peers *sealed.Peers, socket Socket, local netip.AddrPort, log *slog.Logger) (*Manager, error) {
	endpoint, err := newEndpoint(key, socket, local)
	if err != nil {
		return nil, err
	}
	m := &Manager{
		endpoint: endpoint,
		prover:   &prover{endpoint: endpoint, proofs: newProofs(), log: log},
		peers:    peers,
		lanes:    lanes,
		log:      log,
		turns:    turns{limit: endpoint.limit},
		timing:   usual,
		links:    map[peer.Fingerprint]*link{},
		lost:     map[*link]struct{}{},
		changed:  make(chan struct{}),
		Followed: make(chan sealed.Move, 64),
		begun:    make(chan struct{}, 1),
		refusals: rate.NewLimiter(rate.Every(10*time.Second), 3),
		answers:  rate.NewLimiter(answersPerSecond, answersBurst),
	}
	m.expect()
	return m, nil
}

// Update makes the peers those of a State, in which this node is self, until Run has ended.
func (m *Manager) Update(self *peer.Peer, all []*peer.Peer) {
	m.mu.Lock() // before the peers are there, and ask for keys
	defer m.mu.Unlock()
	if m.links == nil {
		return
	}
	_, gone := m.peers.Set(all)
	for _, peer := range gone {
		l := m.links[peer.Key]
		delete(m.links, peer.Key)
		delete(m.lost, l)
		m.stopDialing(l)
		l.close(codeGone)
	}
	for _, p := range all {
		if m.links[p.Key] == nil {
			m.links[p.Key] = &link{peer: m.peers.Find(p.Key), answers: rate.NewLimiter(peerAnswersPerSecond, peerAnswersBurst)}
		}
		m.place(m.links[p.Key], p)
	}
	m.setClaims(self, all)
	m.expect()
	m.notifyChanged()
}

// place notes where a peer is. That it did not answer at another endpoint says nothing about
// this one. The manager's lock is held.
func (m *Manager) place(l *link, node *peer.Peer) {
	before := l.node
	l.node = node
	if before != nil && before.Endpoint == node.Endpoint && before.Listed == node.Listed {
		return
	}
	l.failures, l.refusals, l.retry, l.delivery = 0, 0, time.Time{}, delivery{}
	l.peer.SendSingly(false)
	e := l.peer.Sending()
	switch {
	case l.dial != nil && l.dial.moved == nil: // to the other one
		m.stopDialing(l)
		m.dialSoon(l)
	case e != nil && e.At() != node.Endpoint.Addr(): // it has not answered there yet
		m.dialSoon(l)
	}
}

// Receive implements sealed.Handshakes: only the addresses of peers get an answer.
func (m *Manager) Receive(payload []byte, from netip.AddrPort) drop.Reason {
	if _, ok := (*m.expected.Load())[from.Addr()]; !ok {
		return drop.UnknownPeer
	}
	return m.endpoint.conn.receive(payload, from)
}

// expect makes the addresses that packets are taken from those of the endpoints, of where
// the list has peers that roam, of where peers may have roamed to, and those that peers claim
// beside: who dials one of another family leaves from there. The lock is held.
func (m *Manager) expect() {
	addrs := make(map[netip.Addr]struct{}, len(m.links))
	for _, l := range m.links {
		addrs[l.node.Endpoint.Addr()] = struct{}{}
		if l.node.Listed.IsValid() {
			addrs[l.node.Listed.Addr()] = struct{}{}
		}
		for _, claimed := range l.node.Claimed {
			addrs[claimed] = struct{}{}
		}
		if l.dial != nil && l.dial.moved != nil {
			addrs[l.dial.moved.Addr] = struct{}{}
		}
	}
	m.expected.Store(&addrs)
}

// Resume goes on with the keys of another process's sealed.Peers.Export, and returns with how many
// peers. Their connections are new ones, as if the old ones had been lost. An Update, and no Run,
// must have come before.
func (m *Manager) Resume(export []byte) (peers int, err error) {
	if peers, err = m.peers.Import(export); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for peer := range m.peers.Keyed() {
		l := m.links[peer.Key]
		l.rekey, l.seen = m.timing.rekey+rand.N(m.timing.rekeySpread), peer.Traffic()
		if peer.Singly() {
			l.delivery.loseRuns(now)
		}
	}
	m.stir()
	return peers, nil
}

// Run agrees on keys until ctx is done. When it returns, it begins and uses no epoch any more.
func (m *Manager) Run(ctx context.Context) error {
	if err := m.endpoint.listen(m.known); err != nil {
		return err
	}
	m.tasks.Go(func() { m.accept(ctx) })
	m.tasks.Go(func() { m.watch(ctx) })
	m.tasks.Go(func() { m.prove(ctx) })
	<-ctx.Done()
	m.closeAll()
	err := m.endpoint.close()
	m.tasks.Wait()
	return err
}

func (m *Manager) closeAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.links {
		m.stopDialing(l)
		l.close(codeGone)
	}
	m.links = nil // what is still under way leads nowhere, and nothing is begun any more
	m.notifyChanged()
}
