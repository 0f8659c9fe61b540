package daemon

import (
	"strings"
	"time"

	"weft/encap/sealed/handshake"
	"weft/internal/metrics"
	"weft/internal/status"
)

// peers returns the state of each peer, and which states there can be.
func (v view) peers(now time.Time) (all []metrics.Peer, states []string) {
	of := func(name string) metrics.Peer {
		t := v.traffic[name]
		return metrics.Peer{Name: name, SentPackets: t.SentPackets, SentBytes: t.SentBytes, ReceivedPackets: t.ReceivedPackets, ReceivedBytes: t.ReceivedBytes}
	}
	if v.sealed {
		for _, state := range handshake.States() {
			states = append(states, label(string(state)))
		}
		for _, s := range v.links {
			peer := of(s.Name)
			peer.State, peer.Seen, peer.RTT = label(string(s.State)), s.Heard, s.RTT
			all = append(all, v.onPath(peer))
		}
		return all, states
	}
	for name := range v.traffic {
		peer := v.onPath(of(name))
		peer.State = status.Peer{Path: v.path(name)}.StateAt(now)
		all = append(all, peer)
	}
	return all, []string{status.StateUnknown, string(handshake.Up), string(handshake.Idle), string(handshake.Unreachable)}
}

// label is a state as metrics have it.
func label(state string) string { return strings.ReplaceAll(state, " ", "_") }

// onPath adds to a peer what probes have shown of the way to it.
func (v view) onPath(p metrics.Peer) metrics.Peer {
	path, ok := v.paths[p.Name]
	if !ok {
		return p
	}
	p.MTU, p.Reduced = path.MTU, path.MTU < path.Largest
	if path.Heard.IsZero() {
		return p
	}
	p.Probed, p.Loss = true, path.Loss
	if path.RTT > 0 {
		p.RTT = path.RTT
	}
	if path.Heard.After(p.Seen) {
		p.Seen = path.Heard
	}
	return p
}

// peerSample counts the peers. Where there are more than metrics.peers, it has none of them alone.
func (d *daemon) peerSample(v view) (s metrics.Peers) {
	if v.traffic == nil { // weftd does not forward yet
		return s
	}
	all, states := v.peers(time.Now())
	s.Count, s.States = len(all), map[string]int{}
	for _, state := range states {
		s.States[state] = 0
	}
	for i := range all {
		s.States[all[i].State]++
		if all[i].Reduced {
			s.Reduced++
		}
		all[i].Seen = byTheClock(all[i].Seen)
	}
	if len(all) <= d.config.Metrics.Peers {
		s.Each = all
	}
	return s
}
