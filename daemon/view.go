package daemon

import (
	"fmt"

	"weft/control"
	"weft/encap/probe"
	"weft/encap/sealed/handshake"
	"weft/internal/status"
	"weft/internal/warning"
	"weft/peer"
)

// view is what the data path knows of its peers at one time. A report makes one: the cost grows with the
// number of peers, and the handshake waits meanwhile.
type view struct {
	sealed  bool
	ports   []uint16           // from which the lanes send
	links   []handshake.Status // none with vxlan
	paths   map[string]probe.Path
	traffic map[string]status.Traffic
}

// view returns what is known now: nothing before weftd forwards.
func (d *daemon) view() (v view) {
	p := d.path.Load()
	if p == nil {
		return v
	}
	v = view{sealed: p.keys != nil, paths: p.prober.Paths(), traffic: map[string]status.Traffic{}}
	for _, c := range p.conns {
		v.ports = append(v.ports, c.SourcePort())
	}
	if v.sealed {
		v.links = p.keys.manager.Status()
	} else {
		for name, t := range p.vxlan.Traffic() {
			v.traffic[name] = status.Traffic(t)
		}
	}
	for _, s := range v.links {
		t := s.Traffic
		v.traffic[s.Name] = status.Traffic{SentPackets: t.SentPackets, SentBytes: t.SentBytes, ReceivedPackets: t.ReceivedPackets, ReceivedBytes: t.ReceivedBytes}
	}
	for name, path := range v.paths {
		// It may be of a version that knows no probes, but nothing has ever come from it.
		if t := v.traffic[name]; path.Unanswered && t.SentPackets > 0 && t.ReceivedPackets == 0 {
			path.Silent = true
			v.paths[name] = path
		}
	}
	return v
}

// byKey returns the state of the keys with each peer.
func (v view) byKey() map[peer.Fingerprint]*status.Link {
	links := map[peer.Fingerprint]*status.Link{}
	for _, s := range v.links {
		l := &status.Link{
			Key: s.Key.String(), State: string(s.State), KeysBegan: byTheClock(s.Began), KeysOverdue: s.Overdue,
			Heard: byTheClock(s.Heard), RTT: s.RTT.Microseconds(),
			Refused: s.Traffic.Refused, RunsLost: s.RunsLost,
		}
		if s.Err != nil && (s.State != handshake.Up || s.Overdue) {
			l.Error, l.Failures, l.Retry = s.Err.Error(), s.Failures, byTheClock(s.Retry)
		}
		links[s.Key] = l
	}
	return links
}

// path returns what is known of the path to a peer, or nil.
func (v view) path(name string) *status.Path {
	path, ok := v.paths[name]
	if !ok {
		return nil
	}
	return &status.Path{MTU: path.MTU, Largest: path.Largest, Answered: byTheClock(path.Heard), Silent: path.Silent, RunsLost: path.RunsLost,
		ProbeRTT: path.RTT.Microseconds(), Loss: path.Loss}
}

// keyWarnings returns what an operator needs to know of the keys with peers.
func (v view) keyWarnings() (all []warning.Warning) {
	var gone, overdue, singly []string
	for _, s := range v.links {
		if s.State == handshake.Unreachable {
			gone = append(gone, s.Name)
		}
		if s.Overdue {
			overdue = append(overdue, s.Name)
		}
		if s.RunsLost {
			singly = append(singly, s.Name)
		}
	}
	all = unreachable(gone)
	if len(overdue) > 0 {
		all = append(all, warning.Warning{Code: "rekey_overdue",
			Text: fmt.Sprintf("weftd can't agree on new data keys with %s; `weft peers` says why; when the old keys are %d minutes old, traffic stops",
				control.Few(overdue), int(handshake.KeyLimit.Minutes()))})
	}
	return append(all, runsLost(singly)...)
}
