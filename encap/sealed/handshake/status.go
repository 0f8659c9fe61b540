package handshake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/encap/sealed"
	"weft/peer"
)

// State says how this node and a peer stand.
type State string

// A link is in one of these states.
const (
	NoKeys      State = "no keys"     // nothing has had to be sent yet
	Agreeing    State = "agreeing"    // a handshake is under way
	Up          State = "up"          // the peer shows signs of life
	Idle        State = "idle"        // no packets pass; the keys are still there
	Unreachable State = "unreachable" // the peer does not answer
)

// States returns all of them.
func States() []State { return []State{NoKeys, Agreeing, Up, Idle, Unreachable} }

// Status is what is known about a peer.
type Status struct {
	Name     string
	Key      peer.Fingerprint
	Endpoint netip.AddrPort
	State    State
	Began    time.Time     // of the present keys; zero if there are none
	Overdue  bool          // the present keys are older than they ought to be: handshakes fail
	Heard    time.Time     // when the peer last showed that it lives; zero if it never did
	RTT      time.Duration // of the handshake and the signs of life; zero if the state is not Up
	Traffic  sealed.Traffic
	RunsLost bool // datagrams sent in runs do not arrive, so each is sent alone

	// Of a peer that is not Up, or with overdue keys: why, how many attempts have failed in a
	// row, and when the next one is due if there are packets.
	Err      error
	Failures int
	Retry    time.Time
}

// Status returns all peers, by name.
func (m *Manager) Status() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	all := make([]Status, 0, len(m.links))
	for _, l := range m.links {
		s := Status{Name: l.node.Name, Key: l.peer.Key, Endpoint: l.node.Endpoint, Traffic: l.peer.Traffic(),
			Overdue: l.overdue, Heard: l.lastHeard(now), Err: l.lastErr, Failures: l.failures, Retry: l.retry,
			RunsLost: l.delivery.stage == runsLost || l.delivery.stage == again}
		using := l.peer.Sending()
		if using != nil {
			s.Began = using.Began()
		}
		switch {
		case l.unreachable:
			s.State = Unreachable
		case l.conn != nil:
			s.State, s.RTT = Up, l.conn.ConnectionStats().SmoothedRTT
		case using != nil && now.Sub(l.received) < silence:
			s.State = Up
		case l.answering > 0:
			s.State = Agreeing // the peer's first datagram may have come before its handshake has ended
		case using != nil:
			s.State = Idle
		case l.dial != nil:
			s.State = Agreeing
		default:
			s.State = NoKeys
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Status) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Counts returns what has happened until now.
func (m *Manager) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	counts := m.counts
	counts.TurnedAway = m.endpoint.admission.turnedAway()
	return counts
}

// Rotate agrees on new keys with the named peers, or with all that have keys, and
// returns when they are in use.
func (m *Manager) Rotate(ctx context.Context, names ...string) error {
	asked := time.Now()
	var asking []*link
	m.mu.Lock()
	for _, l := range m.links {
		if slices.Contains(names, l.node.Name) || len(names) == 0 && l.peer.Sending() != nil {
			asking = append(asking, l)
		}
	}
	m.mu.Unlock()
	if len(asking) < len(names) {
		return fmt.Errorf("not all of %s are peers of this node", strings.Join(names, ", "))
	}
	var group errgroup.Group
	group.SetLimit(atOnce)
	errs := make([]error, len(asking))
	for i, l := range asking {
		group.Go(func() error {
			errs[i] = m.awaitKeys(ctx, l, asked)
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(errs...)
}

// AwaitKeys agrees on keys with the named peer, unless there are some, and returns when they are in
// use.
func (m *Manager) AwaitKeys(ctx context.Context, name string) error {
	m.mu.Lock()
	var with *link
	for _, l := range m.links {
		if l.node.Name == name {
			with = l
		}
	}
	m.mu.Unlock()
	if with == nil {
		return fmt.Errorf("%s is no peer of this node", name)
	}
	return m.awaitKeys(ctx, with, time.Time{})
}

// atOnce is with how many peers keys are rotated at a time.
const atOnce = 64

// awaitKeys dials, and returns when keys are in use that were agreed after a point in time.
func (m *Manager) awaitKeys(ctx context.Context, l *link, after time.Time) error {
	for {
		m.mu.Lock()
		changed, using, name, err := m.changed, l.peer.Sending(), l.node.Name, l.lastErr
		done, gone := using != nil && using.Began().After(after), m.links[l.peer.Key] != l
		if !done && !gone {
			m.dialSoon(l) // or again: another handshake that ended stopped the first one
		}
		m.mu.Unlock()
		switch {
		case done:
			return nil
		case gone:
			return fmt.Errorf("no new keys with %s: the node is not in the list any more", name)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("no new keys with %s: %w", name, cmp.Or(err, context.Cause(ctx)))
		}
	}
}
