package handshake

import (
	"context"
	"math/rand/v2"
	"time"

	"weft/encap/sealed"
)

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

// tick looks at the peers that have keys, and at those that do not answer: usually a few
// of thousands. It reports whether there are any.
func (m *Manager) tick(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	keyed, budget, asks := m.peers.Keyed(), dialsPerTick, asksPerTick
	for peer := range keyed {
		if l := m.links[peer.Key]; l != nil && l.peer == peer { // it is not gone
			m.attendKeys(l, now, &budget)
			m.ask(l, now, &asks)
		}
	}
	for l := range m.lost {
		soon := l.failures <= soonAgain && isTimeout(l.lastErr)
		if soon || now.Sub(l.tried) > m.timing.probe/2+rand.N(m.timing.probe/2) {
			m.dialWithin(&budget, l, now)
		}
	}
	return len(keyed)+len(m.lost) > 0
}

// attendKeys does what is due with the keys of a peer. The manager's lock is held.
func (m *Manager) attendKeys(l *link, now time.Time, budget *int) {
	if l.observe(now) && m.found(l) {
		l.lastErr = nil
	}
	l.endOld(now, m.timing.overlap)
	passing := now.Sub(l.active) <= m.timing.idle
	if l.conn != nil && !passing {
		l.close(codeIdle)
		l.heard = now
	}
	using := l.peer.Sending()
	if using == nil {
		return
	}
	age := now.Sub(using.Began())
	overdue := passing && age > m.timing.overdue
	switch {
	case age > m.timing.limit && passing:
		using.End()
		m.log.Error("data keys expired", "peer", l.node.Name, "age", age.Round(time.Second), "error", l.lastErr)
	case age > m.timing.overdue && !passing:
		using.End()
	case passing && (l.conn == nil || using.RekeyDue() || age > l.rekey):
		m.dialWithin(budget, l, now)
	}
	if overdue && !l.overdue {
		m.log.Warn("rekey overdue", "peer", l.node.Name, "age", age.Round(time.Second), "limit", m.timing.limit, "error", l.lastErr)
	}
	l.overdue = overdue && l.peer.Sending() != nil
}

// dialWithin dials a peer that no packet waits for, unless the budget for such dials is used
// up or its time to retry has not come. The manager's lock is held.
func (m *Manager) dialWithin(budget *int, l *link, now time.Time) {
	if *budget == 0 || l.dial != nil || l.answering > 0 || now.Before(l.retry) {
		return
	}
	*budget--
	m.dialSoon(l)
}
