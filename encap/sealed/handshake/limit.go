package handshake

import (
	"sync"
	"time"
)

// How many handshakes may be under way at a time: at the least, at first, and at the most. The
// fewest take 100 ms of processor time together, which a process that gets a twentieth of a
// processor does before dialers give up; each spends most of its time waiting. Each handshake costs
// up to 100 KB until it ends or its time is over.
const (
	fewest    = 32
	beginWith = 128
	most      = 512
)

// overloaded is how long a QUIC packet waits to be read in a process that gets more to do than
// it does. A dialer without an answer for that long sends its first packets again, which is
// more to do.
const overloaded = 200 * time.Millisecond

// outdated is after how long without a change the limit says nothing about the machine any more.
const outdated = time.Minute

// limit is how many handshakes this node takes part in at a time: so many that others began, and
// so many of its own. If more are under way than the processor serves in time, all of them fail,
// and all are tried again. So the limit grows while handshakes succeed, and halves when packets
// wait to be read, as the congestion window of TCP does (RFC 5681).
//
// It judges by delays within this process alone. How long a handshake takes says less: a distant
// peer, a lost packet and a node that is down make it long too, and a hostile peer can.
type limit struct {
	mu      sync.Mutex
	n       float64
	changed time.Time
	halved  time.Time // zero until the machine has shown what is too much for it
}

// now returns how many handshakes there may be.
func (l *limit) now() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renew()
	return int(l.n)
}

// renew begins anew if the limit is outdated. The lock is held.
func (l *limit) renew() {
	if now := time.Now(); now.Sub(l.changed) > outdated {
		l.n, l.changed, l.halved = beginWith, now, time.Time{}
	}
}

// succeeded grows the limit if it is in use: by one for each handshake, and once the limit was
// too high, by one for as many as it allows.
func (l *limit) succeeded(underWay int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renew()
	if underWay < int(l.n)/2 {
		return
	}
	more := 1.0
	if !l.halved.IsZero() {
		more /= l.n
	}
	l.n, l.changed = min(l.n+more, most), time.Now()
}

// read halves the limit if a packet that arrived at a time is read late: once for all packets
// that were waiting.
func (l *limit) read(arrived time.Time) {
	now := time.Now()
	if now.Sub(arrived) < overloaded {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.renew()
	if arrived.After(l.halved) {
		l.n, l.changed, l.halved = max(l.n/2, fewest), now, now
	}
}
