// Package probe finds out over the data path whether peers answer, how long that takes, how much is
// lost, and how large packets may be that reach them. It asks with messages of its own, which the
// peer's weftd answers, and believes no ICMP message: anyone can forge these (RFC 8899).
//
// It sends what it is told to send with, and changes nothing on the host.
package probe

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"weft/drop"
	"weft/peer"
)

// A message is a request or a reply: its kind, three bytes that are zero, and a number that the
// reply repeats. A request is filled with zeros up to its size.
const (
	request = 0x01
	reply   = 0x02

	messageLen = 12
)

const (
	// interval is how often a path is probed while packets leave by it.
	interval = 2 * time.Second

	// tick is how often weftd looks whether rounds have ended, while there are any.
	tick = 100 * time.Millisecond

	// begunPerTick is how many rounds begin in a tick at the most. With 5,000 peers that all
	// receive packets, each is probed every 8 seconds.
	begunPerTick = 64

	// maxArrivals is how many messages may wait for their turn.
	maxArrivals = 1024
)

// A peer's requests are answered up to this rate, in messages a second. A search sends 51 at once.
const (
	answerRate  = 200
	answerBurst = 256
)

// Link sends over the data path.
type Link interface {
	// Send sends messages of one size to a peer from one of this node's lanes, several as a run.
	Send(to *peer.Peer, lane int, messages ...[]byte) error

	// Active returns the names of the peers to which packets were sent since the last call.
	Active() []string
}

// Prober probes the paths to the peers. Its methods may be called from several goroutines.
type Prober struct {
	// Changed receives when the MTU of a path has changed, or whether runs arrive.
	Changed chan struct{}

	// Runs reports whether packets go out in runs, so that it matters whether these arrive. Nil means
	// that it does not. It is set before Run.
	Runs func() bool

	link     Link
	lanes    int
	arrivals chan arrival
	asked    chan struct{} // receives when a Survey was asked for
	known    atomic.Pointer[map[string]*path]

	// awaited are the requests without a reply yet, by their numbers: *awaited. Lanes look there.
	awaited sync.Map

	mu     sync.Mutex // guards what follows, and the paths
	before struct {   // what another process has found out
		narrow   map[string]int
		runsLost map[string]bool
	}
	running map[*path]struct{} // those with a round under way, or due
}

// arrival is a message that a lane has received.
type arrival struct {
	from *peer.Peer
	kind byte
	id   uint64
	at   time.Time
}

// awaited is a request without a reply yet.
type awaited struct {
	path    *path
	shot    shot
	sent    time.Time
	arrived atomic.Bool // the reply waits for its turn
}

// New returns a prober for a node with so many lanes.
func New(link Link, lanes int) *Prober {
	p := &Prober{
		Changed: make(chan struct{}, 1), link: link, lanes: lanes, arrivals: make(chan arrival, maxArrivals),
		asked: make(chan struct{}, 1), running: map[*path]struct{}{},
	}
	p.known.Store(&map[string]*path{})
	return p
}

// Restore has paths carry no more than another process's Narrow and RunsLost have returned, until
// larger probes, or runs, arrive. It comes before the first Update.
func (p *Prober) Restore(narrow map[string]int, runsLost map[string]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before.narrow, p.before.runsLost = narrow, runsLost
}

// Update makes the peers those of a Plan, to which pods send packets of up to largest bytes.
func (p *Prober) Update(peers []*peer.Peer, largest int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before, now := *p.known.Load(), make(map[string]*path, len(peers))
	for _, to := range peers {
		if to.Kernel { // it answers no message
			continue
		}
		known, ok := before[to.Name]
		if !ok {
			known = newPath(p.lanes, largest)
			known.restore(p.before.narrow[to.Name], p.Runs != nil && p.before.runsLost[to.Name], time.Now())
			known.answers = rate.NewLimiter(answerRate, answerBurst)
		}
		moved := known.peer != nil && known.peer.Endpoint != to.Endpoint
		known.peer = to
		now[to.Name] = known
		if moved || known.largest != largest {
			p.forget(known)
			known.restart(largest, moved)
			if known.survey != nil {
				p.running[known] = struct{}{}
			}
		}
	}
	p.known.Store(&now)
	p.before.narrow, p.before.runsLost = nil, nil
	for name, gone := range before {
		if now[name] == nil {
			p.forget(gone)
			gone.endSurvey()
		}
	}
}

// Receive takes in a message. Lanes call it; it never waits.
func (p *Prober) Receive(from *peer.Peer, message []byte) drop.Reason {
	if len(message) < messageLen || message[0] != request && message[0] != reply {
		return drop.Malformed
	}
	known := (*p.known.Load())[from.Name]
	if known == nil {
		return drop.UnknownPeer
	}
	id := binary.BigEndian.Uint64(message[4:])
	// What one peer sends must not fill the queue that all share.
	if message[0] == request && !known.answers.Allow() {
		return drop.ProbesFull
	}
	if message[0] == reply && !p.awaits(known, id) {
		return drop.None // it comes too late, or again, or was never asked for
	}
	select {
	case p.arrivals <- arrival{from, message[0], id, time.Now()}:
		return drop.None
	default:
		return drop.ProbesFull
	}
}

// awaits reports whether a reply by a path is the first one to a request that was sent there.
func (p *Prober) awaits(by *path, id uint64) bool {
	found, ok := p.awaited.Load(id)
	if !ok {
		return false
	}
	to := found.(*awaited)
	return to.path == by && to.arrived.CompareAndSwap(false, true)
}

// Run probes until ctx is done.
func (p *Prober) Run(ctx context.Context) error {
	timer := time.NewTimer(interval)
	scan := time.Now().Add(interval)
	for {
		select {
		case <-ctx.Done():
			return nil
		case a := <-p.arrivals:
			p.take(a)
			continue
		case <-p.asked:
		case <-timer.C:
		}
		now := time.Now()
		if !now.Before(scan) {
			p.activate(now)
			scan = now.Add(interval)
		}
		if p.advance(now) {
			timer.Reset(tick)
		} else {
			timer.Reset(scan.Sub(now))
		}
	}
}

// take answers a request, or takes in a reply.
func (p *Prober) take(a arrival) {
	if a.kind == request {
		b := [messageLen]byte{reply}
		binary.BigEndian.PutUint64(b[4:], a.id)
		_ = p.link.Send(a.from, 0, b[:]) // the peer asks again
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if a.kind == request {
		if path := (*p.known.Load())[a.from.Name]; path != nil && !path.knows {
			path.knows, path.misses, path.due = true, 0, a.at // it is there now
		}
		return
	}
	found, ok := p.awaited.LoadAndDelete(a.id)
	if !ok {
		return // the round has ended meanwhile
	}
	of := found.(*awaited)
	of.path.answered(of.shot, a.at.Sub(of.sent), a.at)
	if of.path.round.complete() {
		p.judge(of.path, a.at)
	}
}

// activate has the paths probed by which packets leave.
func (p *Prober) activate(now time.Time) {
	active, known := p.link.Active(), *p.known.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range active {
		if path := known[name]; path != nil && !path.due.After(now) {
			p.running[path] = struct{}{}
		}
	}
}

// advance ends the rounds that have lasted long enough, and begins those that are due. It reports
// whether there is anything left to do soon.
func (p *Prober) advance(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	budget := begunPerTick
	for path := range p.running {
		if path.round.underWay() && !now.Before(path.round.until) {
			p.judge(path, now)
		}
		if !path.round.underWay() && !path.due.After(now) && budget > 0 {
			budget--
			p.begin(path, now)
		}
	}
	return len(p.running) > 0
}

// begin begins the path's next round. The lock is held.
func (p *Prober) begin(path *path, now time.Time) {
	for _, s := range path.next(now, p.Runs != nil && p.Runs()) {
		if !p.ask(path, s) {
			path.round.unsent(s)
		}
	}
	if path.round.complete() {
		p.judge(path, now)
	}
}

// ask sends a shot, and reports whether it could: a datagram may be too long for the device, or there are
// no keys. The lock is held.
func (p *Prober) ask(path *path, s shot) bool {
	var requests [][]byte
	var ids []uint64
	for range s.datagrams() {
		b := make([]byte, max(s.size, messageLen))
		b[0] = request
		id := newID()
		binary.BigEndian.PutUint64(b[4:], id)
		requests, ids = append(requests, b), append(ids, id)
		p.awaited.Store(id, &awaited{path: path, shot: s, sent: time.Now()}) // before the reply arrives
	}
	if p.link.Send(path.peer, s.lane, requests...) != nil {
		for _, id := range ids {
			p.awaited.Delete(id)
		}
		return false
	}
	path.round.ids = append(path.round.ids, ids...)
	return true
}

// judge ends the path's round. The lock is held.
func (p *Prober) judge(path *path, now time.Time) {
	p.forget(path)
	mtu, runsLost := path.mtu, path.runs.lost
	again := path.judge(now)
	if path.mtu != mtu || path.runs.lost != runsLost {
		select {
		case p.Changed <- struct{}{}:
		default: // it is noticed with the change before
		}
	}
	if again {
		p.running[path] = struct{}{}
	}
}

// forget ends what is under way. The lock is held.
func (p *Prober) forget(path *path) {
	delete(p.running, path)
	for _, id := range path.round.ids {
		p.awaited.Delete(id)
	}
}

// newID returns a number that no one can guess: with vxlan, anyone could forge replies.
func newID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return binary.BigEndian.Uint64(b[:])
}
