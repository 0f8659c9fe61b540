package handshake

import (
	"iter"
	"maps"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"weft/peer"
)

// A node may have further addresses beside its endpoint's, such as a second InternalIP. Like
// the endpoint's, one is its own only once it has shown its key there: this node dials it, and
// closes the connection when the handshake is done. No packet waits for that, so weftd takes its time.
const (
	// proofsAtOnce is how many proofs may be under way, and proofsPerSecond how many are
	// begun: with 5,000 claims, the first one of each takes eight minutes.
	proofsAtOnce    = 16
	proofsPerSecond = 10

	// A peer that was taken over may claim addresses of others, and change that all the time. It
	// gets as many dials as the addresses that it may have need twice, and then one every
	// peerPause: enough to renew them all.
	peerPause = 2 * time.Minute
	peerBurst = 12

	// restored is for how long a proof of before a restart stands, as it may be old.
	restored = 10 * time.Minute

	// firstProof is how long to wait after a failure, and twice as long after each further one:
	// lastProof at the most while an earlier proof stands, and else as long as renew.
	firstProof = 2 * time.Second
	lastProof  = time.Minute

	// failuresLogged is after how many failures in a row, half a minute, an operator learns of an
	// address that was never proven. A peer that starts fails less often.
	failuresLogged = 5
)

// claim is an address that a peer says it has.
type claim struct {
	key  peer.Fingerprint
	addr netip.Addr
}

// proof is what is known about a claim.
type proof struct {
	name      string         // the peer's
	to        netip.AddrPort // where to dial
	proven    time.Time      // when the peer last answered there; zero: it is not proven
	due       time.Time      // when to dial again
	pending   bool           // a dial is under way
	contested bool           // another peer has answered there since this one did
	failures  int            // in a row
	logged    bool           // that it is not proven
}

// proofs are the claims of all peers. Its methods may be called from several goroutines.
type proofs struct {
	// renew is how long a proof stands before it is made again, and up to half of it more;
	// lapse is when it stands no longer, if that has failed until then.
	renew, lapse time.Duration

	perPeer rate.Limit

	changed chan struct{} // receives when there may be something to prove
	proved  chan struct{} // receives when what is proven has changed

	mu     sync.Mutex // guards what follows
	claims map[claim]*proof
	pace   map[peer.Fingerprint]*rate.Limiter // of each peer
	before map[netip.Addr]peer.Fingerprint    // what was proven before a restart, until set has seen it
}

func newProofs() *proofs {
	return &proofs{
		renew: 15 * time.Minute, lapse: KeyLimit, perPeer: rate.Every(peerPause),
		changed: make(chan struct{}, 1), proved: make(chan struct{}, 1),
	}
}

// set makes the claims those of the peers, as far as this node can prove them.
func (p *proofs) set(peers []*peer.Peer, canProve func(netip.Addr) bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.proven()
	if p.before != nil {
		was = p.before
	}
	claims, pace := map[claim]*proof{}, map[peer.Fingerprint]*rate.Limiter{}
	for _, peer := range peers {
		if before, ok := p.pace[peer.Key]; ok {
			pace[peer.Key] = before
		} else if len(peer.Claimed) > 0 {
			pace[peer.Key] = rate.NewLimiter(p.perPeer, peerBurst)
		}
		for _, addr := range peer.Claimed {
			if canProve(addr) {
				c, to := claim{peer.Key, addr}, netip.AddrPortFrom(addr, peer.Endpoint.Port())
				claims[c] = p.keep(c, to, now)
				claims[c].name = peer.Name
			}
		}
	}
	p.claims, p.pace, p.before = claims, pace, nil
	if !maps.Equal(was, p.proven()) {
		signal(p.proved)
	}
	signal(p.changed)
}

// keep returns what is known about a claim. The lock is held.
func (p *proofs) keep(c claim, to netip.AddrPort, now time.Time) *proof {
	if o := p.claims[c]; o != nil && o.to == to {
		return o
	}
	if key, ok := p.before[c.addr]; ok && key == c.key {
		return &proof{to: to, due: now, proven: now.Add(restored - p.lapse)}
	}
	return &proof{to: to, due: now}
}

// next returns the claim to prove next, or how long none is due: indefinitely if wait is negative.
func (p *proofs) next(now time.Time) (c claim, to netip.AddrPort, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		var first *proof
		for each, proof := range p.claims {
			if !proof.pending && (first == nil || proof.due.Before(first.due)) {
				c, first = each, proof
			}
		}
		if first == nil {
			return claim{}, netip.AddrPort{}, -1
		}
		if wait = first.due.Sub(now); wait > 0 {
			return claim{}, netip.AddrPort{}, wait
		}
		if p.pace[c.key].AllowN(now, 1) {
			first.pending = true
			return c, first.to, 0
		}
		first.due = now.Add(peerPause)
	}
}

// done takes how a dial has ended. It returns the peer's name if what is proven has changed, or
// is not proven for the first time.
func (p *proofs) done(c claim, to netip.AddrPort, err error, now time.Time) (news string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer signal(p.changed)
	proof := p.claims[c]
	if proof == nil || proof.to != to {
		return ""
	}
	was := !proof.proven.IsZero()
	proof.pending = false
	proof.note(err, p, now)
	switch is := !proof.proven.IsZero(); {
	case err == nil && !was && p.contest(c, now):
		return ""
	case err != nil && !is && !was && proof.failures >= failuresLogged && !proof.logged:
		proof.logged = true
		return proof.name
	case is == was:
		return ""
	}
	proof.logged = err != nil
	if err != nil {
		for o := range p.rivals(c) {
			o.due = now // the address may have moved there
		}
	}
	signal(p.proved)
	return proof.name
}

// contest reports whether another peer has proven the address of a claim before. Then it stays
// there if that one still answers: a Service or a NAT can lead one port of any address to the
// other peer. The lock is held.
func (p *proofs) contest(c claim, now time.Time) bool {
	for o := range p.rivals(c) {
		if !o.proven.IsZero() {
			p.claims[c].proven = time.Time{}
			o.contested, o.due = true, now
			return true
		}
	}
	return false
}

// rivals are the claims of other peers to the same address. The lock is held.
func (p *proofs) rivals(c claim) iter.Seq[*proof] {
	return func(yield func(*proof) bool) {
		for other, o := range p.claims {
			if other.addr == c.addr && other.key != c.key && !yield(o) {
				return
			}
		}
	}
}

// note notes the end of a dial, and when the next is due.
func (o *proof) note(err error, p *proofs, now time.Time) {
	if err == nil {
		o.failures, o.proven, o.contested, o.due = 0, now, false, now.Add(p.renew+rand.N(p.renew/2))
		return
	}
	// Among very many claims, the first dial may be later than that: no single loss ends a proof.
	if o.contested || o.failures > 0 && now.Sub(o.proven) > p.lapse {
		o.proven, o.contested = time.Time{}, false
	}
	longest := p.renew
	if !o.proven.IsZero() {
		longest = min(longest, lastProof)
	}
	o.due = now.Add(backoff(firstProof, longest, o.failures))
	o.failures++
}

// soon has the claims of a peer that could not be proven tried once more now: it answers again.
// Those that fail for another reason are tried no more often afterwards than before.
func (p *proofs) soon(key peer.Fingerprint, addrs []netip.Addr, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, addr := range addrs {
		if o := p.claims[claim{key, addr}]; o != nil && o.failures > 0 {
			o.due = now
			signal(p.changed)
		}
	}
}

// proven returns which peer has proven which address. The lock is held.
func (p *proofs) proven() map[netip.Addr]peer.Fingerprint {
	all := map[netip.Addr]peer.Fingerprint{}
	for c, o := range p.claims {
		if !o.proven.IsZero() {
			all[c.addr] = c.key
		}
	}
	return all
}
