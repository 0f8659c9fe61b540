package sealed

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft/drop"
	"weft/encap"
	"weft/fib"
	"weft/packet"
	"weft/peer"
)

// How much may wait for keys, in bytes, for one peer and for all: about what a neighbour
// without an address may keep waiting in the kernel (arp(7), unres_qlen_bytes). With each
// packet go waitingExtra bytes.
const (
	maxWaiting    = 256 << 10
	maxWaitingAll = 8 << 20
	waitingExtra  = 256
)

// maxEpochs is how many epochs a peer may have at a time.
const maxEpochs = 16

// Peers are the nodes that this one may exchange packets with, and the keys agreed
// with each. Its methods may be called from several goroutines.
type Peers struct {
	known    atomic.Pointer[known]
	sessions sessions
	waiting  atomic.Int64 // bytes that wait, of all peers

	sentPackets, sentBytes, lost atomic.Uint64 // of what has waited

	// Wanted receives peers to agree on keys with, each once until HandshakeDone is called for
	// it.
	Wanted chan *Peer

	// Moved receives peers of which authentic datagrams come from another address than
	// their endpoint's.
	Moved chan Move
}

// Move is where a peer's datagrams come from.
type Move struct {
	Peer *peer.Peer
	Addr netip.Addr
}

// known is never changed.
type known struct {
	peers map[peer.Fingerprint]*Peer
}

// NewPeers returns an empty set.
func NewPeers() *Peers {
	p := &Peers{Wanted: make(chan *Peer, 1024), Moved: make(chan Move, 64)}
	p.known.Store(new(known))
	return p
}

// Set makes the peers those of a State. It returns who was not there before, and who is
// not there any more: their keys are not used from now on, in either direction.
func (p *Peers) Set(all []*peer.Peer) (come, gone []*Peer) {
	before := p.known.Load().peers
	now := make(map[peer.Fingerprint]*Peer, len(all))
	for _, e := range all {
		peer, ok := before[e.Key]
		if !ok {
			peer = &Peer{Key: e.Key, peers: p}
			come = append(come, peer)
		}
		now[e.Key] = peer
	}
	p.known.Store(&known{now})
	for key, peer := range before {
		if now[key] == nil {
			peer.cutOff()
			gone = append(gone, peer)
		}
	}
	return come, gone
}

// Find returns the peer with a key, or nil.
func (p *Peers) Find(key peer.Fingerprint) *Peer { return p.known.Load().peers[key] }

// All returns all peers.
func (p *Peers) All() map[peer.Fingerprint]*Peer { return maps.Clone(p.known.Load().peers) }

// unknownIndex takes notice of a datagram with an index that no session has. If it comes from
// the address of a peer with which there are no keys, this node was restarted, and the peer
// does not know yet.
func (p *Peers) unknownIndex(from netip.Addr, table *fib.Table) {
	at, ok := table.Sender(from)
	if !ok {
		return
	}
	if peer := p.Find(at.Key); peer != nil && peer.sending.Load() == nil {
		peer.want()
	}
}

func (p *Peers) moved(peer *peer.Peer, to netip.Addr) {
	select {
	case p.Moved <- Move{peer, to}:
	default: // the next datagram reports it again
	}
}

// Peer is another node.
type Peer struct {
	// Key is who it is.
	Key peer.Fingerprint

	peers   *Peers
	sending atomic.Pointer[Epoch] // what is sealed with; nil until keys are agreed
	singly  atomic.Bool           // no runs
	wanted  atomic.Bool

	mu      sync.Mutex // guards what follows
	gone    bool
	epochs  []*Epoch // the newest is the last; those before it only receive
	waiting []waiting
	bytes   int
	past    Traffic // of epochs that are over
}

// waiting is a packet without keys.
type waiting struct {
	frame packet.Frame

	// node is the packet's destination, if that is the peer's own address and not a pod's.
	// Only keys that were agreed there let it go.
	node netip.Addr
}

// want asks for keys.
func (p *Peer) want() {
	if p.wanted.Swap(true) {
		return
	}
	select {
	case p.peers.Wanted <- p:
	default:
		p.wanted.Store(false) // the next packet will ask again
	}
}

// wait keeps a copy of a packet until there are keys, and asks for them. It returns false
// if they are there by now.
func (p *Peer) wait(f *packet.Frame, node netip.Addr) (waits bool, reason drop.Reason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sending.Load() != nil {
		return false, drop.None
	}
	n := f.Len() + waitingExtra
	if p.gone || p.bytes+n > maxWaiting || p.peers.waiting.Load()+int64(n) > maxWaitingAll {
		return true, drop.NoKeys
	}
	p.waiting = append(p.waiting, waiting{f.Clone(TagLen), node})
	p.bytes += n
	p.peers.waiting.Add(int64(n))
	p.want()
	return true, drop.None
}

// Begin begins an epoch, with keys that were agreed with the peer at an address. Expect and
// Use have it used. The secrets are moved into the epoch, which wipes them at its end.
func (p *Peer) Begin(secrets *Secrets, at netip.Addr) (*Epoch, error) {
	e := &Epoch{peer: p, secrets: new(Secrets), at: at, began: time.Now()}
	*e.secrets, *secrets = *secrets, Secrets{}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		e.wipe()
		return nil, errors.New("the node is not in the list any more")
	}
	if len(p.epochs) == maxEpochs { // keys have changed faster than anything is under way
		oldest := p.epochs[0]
		if oldest == p.sending.Load() {
			oldest = p.epochs[1]
		}
		oldest.end()
	}
	if err := p.peers.sessions.add(e); err != nil {
		e.wipe()
		return nil, err
	}
	p.epochs = append(p.epochs, e)
	return e, nil
}

// Expect has what the peer's lanes seal with the epoch's keys received. session is what the
// peer's Session returned. The first datagram that proves authentic proves too that the peer
// has the keys, so its answer is sealed with them: the peer may have no others.
func (e *Epoch) Expect(lanes int, session uint32) {
	e.remote = session << laneBits
	e.lanes.Store(int32(min(lanes, MaxLanes)))
}

// Use seals everything to the peer with the epoch's keys from now on, after Expect. Packets
// that have waited go first, as datagrams to send to the peer's present endpoint. Only one
// goroutine at a time may call Use for a peer.
func (e *Epoch) Use(send func(datagram []byte)) {
	e.sendWaiting(e.peer.takeWaiting(nil), send)
	e.sendWaiting(e.peer.takeWaiting(e), send) // what came meanwhile: little, even if lanes never rest
}

// takeWaiting empties the queue. With an epoch, that is what is sealed with from now on,
// so that nothing waits any more.
func (p *Peer) takeWaiting(e *Epoch) []waiting {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e != nil && !e.retired.Load() {
		e.proven.Store(true)
		p.sending.Store(e)
	}
	return p.forgetWaiting()
}

// prove has the epoch sealed with, since the peer has its keys, unless a newer one is.
func (e *Epoch) prove() {
	e.peer.mu.Lock()
	defer e.peer.mu.Unlock()
	if e.proven.Swap(true) || e.retired.Load() {
		return
	}
	if newest := e.peer.epochs[len(e.peer.epochs)-1]; newest == e {
		e.peer.sending.Store(e)
	}
}

// sendWaiting seals packets with the key that no lane has.
func (e *Epoch) sendWaiting(waited []waiting, send func(datagram []byte)) {
	e.control.Lock()
	defer e.control.Unlock()
	var out encap.Batch
	s := e.sealer(controlLane)
	if s == nil { // the peer is gone by now
		e.peer.peers.lost.Add(uint64(len(waited)))
		return
	}
	packets, bytes := s.packets.Load(), s.bytes.Load()
	for i := range waited {
		w := &waited[i]
		if w.node.IsValid() && w.node != e.at || s.seal(&out, &w.frame, nil) != drop.None {
			e.peer.peers.lost.Add(1)
		}
	}
	e.peer.peers.sentPackets.Add(s.packets.Load() - packets)
	e.peer.peers.sentBytes.Add(s.bytes.Load() - bytes)
	for _, datagram := range out.Datagrams() {
		send(datagram)
	}
}

// ErrNoKeys says that no keys are agreed with a peer, or that they seal no more.
var ErrNoKeys = errors.New("no keys are agreed with the peer")

// Message returns the datagram that carries a message, which must begin as isMessage has it,
// sealed with the key that no lane has. It never asks for keys.
func (p *Peer) Message(message []byte) ([]byte, error) {
	e := p.sending.Load()
	if e == nil {
		return nil, ErrNoKeys
	}
	e.control.Lock()
	defer e.control.Unlock()
	s := e.sealer(controlLane)
	if s == nil {
		return nil, ErrNoKeys
	}
	b := make([]byte, HeaderLen+len(message)+TagLen)
	s.sealOne(b, message)
	return b, nil
}

// forgetWaiting empties the queue; p.mu is held.
func (p *Peer) forgetWaiting() []waiting {
	all := p.waiting
	p.peers.waiting.Add(-int64(p.bytes))
	p.waiting, p.bytes = nil, 0
	return all
}

// End has the epoch's keys used no more, in either direction.
func (e *Epoch) End() {
	e.peer.mu.Lock()
	defer e.peer.mu.Unlock()
	e.end()
}

func (e *Epoch) end() {
	if e.retired.Swap(true) {
		return
	}
	e.peer.sending.CompareAndSwap(e, nil)
	e.peer.peers.sessions.remove(e)
	e.peer.epochs = slices.DeleteFunc(e.peer.epochs, func(o *Epoch) bool { return o == e })
	e.peer.past = e.peer.past.plus(e.traffic())
	e.wipe()
}

// cutOff ends everything with the peer for good.
func (p *Peer) cutOff() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	p.peers.lost.Add(uint64(len(p.forgetWaiting())))
	for _, e := range slices.Clone(p.epochs) {
		e.end()
	}
}

// HandshakeDone ends the pending handshake: it agreed on keys or was given up. The next packet
// without keys asks for another. If none were agreed, the waiting packets are lost.
func (p *Peer) HandshakeDone(agreed bool) {
	p.wanted.Store(false)
	if !agreed {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.peers.lost.Add(uint64(len(p.forgetWaiting())))
	}
}

// Waited is what became of packets that had to wait for keys. The lanes know no more of
// them than that they wait.
type Waited struct {
	Packets, Bytes uint64 // sent
	Lost           uint64
}

// Waited returns what became of them until now.
func (p *Peers) Waited() Waited {
	return Waited{p.sentPackets.Load(), p.sentBytes.Load(), p.lost.Load()}
}

// Restore has Waited go on from what another process's has returned.
func (p *Peers) Restore(w Waited) {
	p.sentPackets.Add(w.Packets)
	p.sentBytes.Add(w.Bytes)
	p.lost.Add(w.Lost)
}

// Keyed returns the peers with whom there are epochs.
func (p *Peers) Keyed() map[*Peer]struct{} { return p.sessions.peers() }

// SendSingly has each datagram to the peer sent as a message of its own, or runs again.
func (p *Peer) SendSingly(singly bool) { p.singly.Store(singly) }

// Singly reports whether each datagram to the peer is sent as a message of its own.
func (p *Peer) Singly() bool { return p.singly.Load() }

// Sending returns the epoch that is sealed with, or nil.
func (p *Peer) Sending() *Epoch { return p.sending.Load() }

// Epochs returns those that are received from, the newest last.
func (p *Peer) Epochs() []*Epoch {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.epochs)
}

// Session returns the number by which the peer must name the epoch.
func (e *Epoch) Session() uint32 { return e.local >> laneBits }
