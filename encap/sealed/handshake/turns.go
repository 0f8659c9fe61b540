package handshake

import "slices"

// urgency is which dials go first where more are due than may be under way.
type urgency int

const (
	urgent   urgency = iota // a packet waits for the keys, or the peer is looked for elsewhere
	ordinary                // no packet waits
	doubtful                // the peer did not answer last time
	urgencies
)

// turns lets the dials of this node go, as many at a time as the limit allows. Doubtful ones have
// half of the places at the most: each may hold one for seconds, without an answer. The manager's
// lock guards it.
type turns struct {
	limit    *limit
	underWay [urgencies]int
	waiting  [urgencies][]*dial
}

// add has a dial wait for its turn, or wait with another urgency than before.
func (t *turns) add(d *dial, u urgency) {
	t.remove(d)
	d.urgency = u
	t.waiting[u] = append(t.waiting[u], d)
}

// remove takes a dial out that is given up, or is to wait elsewhere.
func (t *turns) remove(d *dial) {
	if i := slices.Index(t.waiting[d.urgency], d); i >= 0 {
		t.waiting[d.urgency] = slices.Delete(t.waiting[d.urgency], i, i+1)
	}
}

func (t *turns) isWaiting(d *dial) bool { return slices.Contains(t.waiting[d.urgency], d) }

// next returns the dial whose turn it is, or nil. done must be called when it has ended.
func (t *turns) next() *dial {
	limit := t.limit.now()
	if t.total() >= limit {
		return nil
	}
	for u := range t.waiting {
		if len(t.waiting[u]) == 0 || urgency(u) == doubtful && t.underWay[u] >= limit/2 {
			continue
		}
		d := t.waiting[u][0]
		t.waiting[u] = slices.Delete(t.waiting[u], 0, 1)
		t.underWay[u]++
		return d
	}
	return nil
}

// done gives the place of a dial back.
func (t *turns) done(d *dial, succeeded bool) {
	if succeeded {
		t.limit.succeeded(t.total())
	}
	t.underWay[d.urgency]--
}

func (t *turns) total() (n int) {
	for _, under := range t.underWay {
		n += under
	}
	return n
}
