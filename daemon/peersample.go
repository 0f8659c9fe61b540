package daemon

import (
	"strings"
	"time"

	"weft/encap/probe"
	"weft/encap/sealed/handshake"
	"weft/internal/metrics"
	"weft/internal/status"
)

// peers returns the state of each peer, and how many states there can be.
func (p *path) peers(now time.Time) (all []metrics.Peer, states []string) {
	paths := p.prober.Paths()
	if p.keys != nil {
		for _, state := range handshake.States() {
			states = append(states, label(string(state)))
		}
		for _, s := range p.keys.manager.Status() {
			t := s.Traffic
			all = append(all, onPath(paths, metrics.Peer{Name: s.Name, State: label(string(s.State)), Seen: s.Heard, RTT: s.RTT,
				SentPackets: t.SentPackets, SentBytes: t.SentBytes, ReceivedPackets: t.ReceivedPackets, ReceivedBytes: t.ReceivedBytes}))
		}
		return all, states
	}
	for name, t := range p.vxlan.Traffic() {
		peer := onPath(paths, metrics.Peer{Name: name, SentPackets: t.SentPackets, SentBytes: t.SentBytes, ReceivedPackets: t.ReceivedPackets, ReceivedBytes: t.ReceivedBytes})
		known := status.Peer{}
		if path, ok := paths[name]; ok {
			known.Path = describePath(path)
		}
		peer.State = known.StateAt(now)
		all = append(all, peer)
	}
	return all, []string{status.StateUnknown, string(handshake.Up), string(handshake.Idle), string(handshake.Unreachable)}
}

// label is a state as metrics have it.
func label(state string) string { return strings.ReplaceAll(state, " ", "_") }

// onPath adds to a peer what probes have shown of the way to it.
func onPath(paths map[string]probe.Path, p metrics.Peer) metrics.Peer {
	path, ok := paths[p.Name]
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
func (d *daemon) peerSample() (s metrics.Peers) {
	p := d.path.Load()
	if p == nil {
		return s
	}
	all, states := p.peers(time.Now())
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
