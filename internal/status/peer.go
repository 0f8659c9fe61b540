package status

import (
	"cmp"
	"time"
)

// The states of a peer that has no keys, as probes of the path show them.
const (
	stateUp          = "up"
	stateIdle        = "idle"
	stateUnreachable = "unreachable"
	StateUnknown     = "unknown" // it has never answered
)

// answeredLately is for how long an answer shows that a peer without keys is up: a path is probed more
// often while packets leave by it.
const answeredLately = time.Minute

// StateAt is the state of the link to a peer at a time: that of the keys, or where packets are not
// sealed, what probes have shown.
func (p Peer) StateAt(now time.Time) string {
	switch {
	case p.Link != nil:
		return p.State
	case p.Path != nil && p.Path.Silent:
		return stateUnreachable
	case p.Path == nil || p.Path.Answered.IsZero():
		return StateUnknown // it has never answered, or is a kernel VXLAN device
	case now.Sub(p.Path.Answered) < answeredLately:
		return stateUp
	}
	return stateIdle
}

// Unreachable says whether a peer does not answer.
func (p Peer) Unreachable() bool {
	if p.Link != nil {
		return p.State == stateUnreachable
	}
	return p.Path != nil && p.Path.Silent
}

// Reason is why a peer is unreachable or its keys are overdue, and the remedy.
func (p Peer) Reason() string {
	switch {
	case p.Link == nil && p.Path != nil && p.Path.Answered.IsZero():
		return "it has answered nothing since this weftd started; check that weftd runs there with the same encapsulation, vxlan.vni and port, and that the underlay passes UDP both ways"
	case p.Link == nil:
		return "it answered probes before, and does not now; check that weftd runs there, and that the underlay passes UDP both ways"
	}
	return cmp.Or(p.Error, "it does not answer; `weft peers` says more")
}

// HeardAt is when the peer last showed that it lives, if it ever did.
func (p Peer) HeardAt() time.Time {
	switch {
	case p.Link != nil:
		return p.Heard
	case p.Path != nil:
		return p.Path.Answered
	}
	return time.Time{}
}

// RoundTrip is the time that an answer of the peer takes; 0 if it is not known.
func (p Peer) RoundTrip() time.Duration {
	micros := int64(0)
	if p.Link != nil {
		micros = p.RTT
	}
	if micros == 0 && p.Path != nil && !p.Path.Silent {
		micros = p.Path.ProbeRTT
	}
	return time.Duration(micros) * time.Microsecond
}

// Probed is what probes have shown of the path; nil if the peer has never answered one.
func (p Peer) Probed() *Path {
	if p.Path == nil || p.Path.Answered.IsZero() {
		return nil
	}
	return p.Path
}
