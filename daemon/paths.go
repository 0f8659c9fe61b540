package daemon

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"weft/control"
	"weft/encap/probe"
	"weft/encap/sealed"
	"weft/encap/vxlan"
	"weft/internal/config"
	"weft/internal/family"
	"weft/internal/status"
	"weft/internal/warning"
	"weft/peer"
)

// probeLink sends probes the way that packets go.
type probeLink struct {
	path *path
	vni  uint32
	last map[string]uint64 // packets sent, by peer
}

func newProbeLink(c config.Config, p *path) *probeLink {
	return &probeLink{path: p, vni: c.VXLAN.VNI, last: map[string]uint64{}}
}

// Send implements probe.Link.
func (l *probeLink) Send(to *peer.Peer, lane int, messages ...[]byte) error {
	var run []byte
	for _, message := range messages {
		datagram, err := l.datagram(to, message)
		if err != nil {
			return err
		}
		run = append(run, datagram...)
	}
	conn := l.path.conns[lane]
	if len(messages) == 1 {
		return conn.WriteFromLane(run, to.Endpoint)
	}
	return conn.WriteRunFromLane(run, len(run)/len(messages), to.Endpoint)
}

// datagram returns the one that carries a message.
func (l *probeLink) datagram(to *peer.Peer, message []byte) ([]byte, error) {
	if l.path.keys == nil {
		return vxlan.Message(l.vni, l.path.router.Table().Self(), to, message), nil
	}
	with := l.path.keys.peers.Find(to.Key)
	if with == nil {
		return nil, sealed.ErrNoKeys
	}
	return with.Message(message)
}

// Active implements probe.Link.
func (l *probeLink) Active() (active []string) {
	before := l.last
	l.last = l.path.sent()
	for name, sent := range l.last {
		if sent != before[name] {
			active = append(active, name)
		}
	}
	return active
}

// sent returns how many packets were sent, by peer. Peers without keys, to which none can be, may be
// absent.
func (p *path) sent() map[string]uint64 {
	sent := map[string]uint64{}
	if p.keys == nil {
		for name, t := range p.vxlan.Traffic() {
			sent[name] = t.SentPackets
		}
		return sent
	}
	table := p.router.Table()
	for with := range p.keys.peers.Keyed() {
		if at := table.ByKey(with.Key); at != nil {
			sent[at.Name] = with.Traffic().SentPackets
		}
	}
	return sent
}

// updateProber makes the peers those that paths are probed to, and has those that lose runs get none.
func (p *path) updateProber(peers []*peer.Peer, mtu int) {
	p.prober.Update(peers, mtu)
	if p.vxlan != nil {
		p.vxlan.SendSingly(p.prober.RunsLost())
	}
}

// watchPaths has the routes follow the MTU of paths, and what is sent whether runs arrive, as the prober
// finds it out, until ctx is done.
func (d *daemon) watchPaths(ctx context.Context, prober *probe.Prober) {
	known, singly := map[string]int{}, map[string]bool{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-prober.Changed:
		}
		_ = d.apply(ctx) // it has logged that
		narrow, lost := prober.Narrow(), prober.RunsLost()
		logChanges(known, narrow,
			func(name string) { d.log.Warn("path MTU reduced", "peer", name, "mtu", narrow[name]) },
			func(name string) { d.log.Info("path MTU restored", "peer", name) })
		logChanges(singly, lost,
			func(name string) { d.log.Warn("datagrams in runs lost, runs disabled", "peer", name) },
			func(name string) { d.log.Info("datagrams in runs arrive again", "peer", name) })
		known, singly = narrow, lost
	}
}

// logChanges logs which peers have something new of a kind, and which have nothing of it any more.
func logChanges[T comparable](before, now map[string]T, begins, ends func(name string)) {
	for name, is := range now {
		if was, ok := before[name]; !ok || was != is {
			begins(name)
		}
	}
	for name := range before {
		if _, still := now[name]; !still {
			ends(name)
		}
	}
}

// narrowPrefixes returns the MTU of what lies behind the named peers.
func narrowPrefixes(peers []*peer.Peer, narrow map[string]int) map[netip.Prefix]int {
	if len(narrow) == 0 {
		return nil
	}
	mtus := map[netip.Prefix]int{}
	for _, p := range peers {
		mtu, ok := narrow[p.Name]
		if !ok {
			continue
		}
		for _, prefix := range p.Prefixes {
			mtus[prefix] = mtu
			if prefix.Addr().Is6() {
				mtus[prefix] = max(mtu, family.LeastMTU6) // the kernel knows no smaller one
			}
		}
	}
	return mtus
}

// pathWarnings says which paths carry less than the device takes or lose runs, and which peers don't
// answer probes any more: with sealed, the handshake says so.
func (d *daemon) pathWarnings(v view) (all []warning.Warning) {
	var silent, singly []string
	all = v.lossWarnings()
	for _, name := range slices.Sorted(maps.Keys(v.paths)) {
		path := v.paths[name]
		if path.Silent && !v.sealed {
			silent = append(silent, name)
		}
		if path.RunsLost {
			singly = append(singly, name)
		}
		if path.MTU >= path.Largest {
			continue
		}
		text := fmt.Sprintf("the path to %s loses packets of more than %d bytes without an ICMP message; pods send smaller ones there, as weftd has the kernel report it; raise the MTU of the path by %d, or set tun.mtu to %d",
			name, path.MTU, path.Largest-path.MTU, path.MTU)
		if path.MTU < family.LeastMTU6 && len(family.IPv6.Prefixes(d.config.ClusterCIDRs)) > 0 {
			text = fmt.Sprintf("the path to %s loses packets of more than %d bytes; IPv6 needs %d, so its packets of %d to %d bytes get lost; raise the MTU of the path by %d",
				name, path.MTU, family.LeastMTU6, path.MTU+1, family.LeastMTU6, path.Largest-path.MTU)
		}
		all = append(all, warning.Warning{Code: "path_mtu", Text: text})
	}
	return slices.Concat(all, unreachable(silent), runsLost(singly))
}

// lossesKnown is for how long after a peer's last answer losses on the way to it are worth a warning: no
// packets may take it any more.
const lossesKnown = time.Minute

// lossWarnings says from which lanes packets get lost, or else on which paths many do. The texts name
// no figures that change: each change would be an event.
func (v view) lossWarnings() (all []warning.Warning) {
	dead, lossy := map[int][]string{}, []string(nil)
	for _, name := range slices.Sorted(maps.Keys(v.paths)) {
		path := v.paths[name]
		switch {
		case path.Silent || time.Since(path.Heard) > lossesKnown:
		case len(path.Dead) > 0:
			for _, lane := range path.Dead {
				dead[lane] = append(dead[lane], name)
			}
		case path.Lossy:
			lossy = append(lossy, name)
		}
	}
	for _, lane := range slices.Sorted(maps.Keys(dead)) {
		all = append(all, warning.Warning{Code: "lane_cut_off", Text: fmt.Sprintf(
			"probes from UDP port %d of this node (lane %d) get no answer from %s, and those from its other ports do, so connections whose packets leave by it stall; look for a filter, a NAT or one of several links on the way that drops them",
			v.ports[lane], lane, control.Few(dead[lane]))})
	}
	if len(lossy) > 0 {
		all = append(all, warning.Warning{Code: "path_loss", Text: fmt.Sprintf(
			"more than %d %% of the last probes to %s got no answer; look for errors and drops of cards and switches on the way, and for an underlay that is overloaded",
			int(100*probe.LossyFrom), control.Few(lossy))})
	}
	return all
}

// unreachable warns of peers that are, if there are some.
func unreachable(peers []string) []warning.Warning {
	if len(peers) == 0 {
		return nil
	}
	return []warning.Warning{{Code: "peers_unreachable", Text: fmt.Sprintf("unreachable: %s; `weft peers` says why", control.Few(peers))}}
}

// runsLost warns of peers to which runs get lost, if there are some.
func runsLost(peers []string) []warning.Warning {
	if len(peers) == 0 {
		return nil
	}
	return []warning.Warning{{Code: "udp_gso_lost",
		Text: fmt.Sprintf("datagrams sent in one message (UDP GSO) get lost on the way to %s without an error, so weftd sends each one alone; update the kernel, or try ethtool -K DEVICE tx-udp-segmentation off and restart weftd",
			control.Few(peers))}}
}

// peerNamed returns a peer as it is listed. It reads no more: `weft probe` asks for each of thousands.
func (d *daemon) peerNamed(name string) (status.Peer, error) {
	listed := status.Report{Node: d.config.Node}
	if plan := d.activePlan(); plan != nil {
		for _, p := range plan.Peers {
			listed.Peers = append(listed.Peers, status.Peer{Name: p.Name, Endpoint: p.Endpoint})
		}
	}
	found, err := listed.Select([]string{name})
	if err != nil {
		return status.Peer{}, err
	}
	return found[0], nil
}

// keysWithin is how long a probe waits for keys.
const keysWithin = 10 * time.Second

// probe is what `weft probe` asks for.
func (d *daemon) probe(ctx context.Context, name string, rounds int) (status.Probe, error) {
	p := d.path.Load()
	if p == nil {
		return status.Probe{}, fmt.Errorf("weftd does not forward yet: %w", d.Ready())
	}
	to, err := d.peerNamed(name)
	if err != nil {
		return status.Probe{}, err
	}
	ctx, cancel := p.during(ctx)
	defer cancel()
	result := status.Probe{Peer: name, Endpoint: to.Endpoint}
	if p.keys != nil {
		within, cancel := context.WithTimeout(ctx, keysWithin)
		defer cancel()
		if err := p.keys.manager.AwaitKeys(within, name); err != nil {
			result.Error = err.Error()
			return result, nil
		}
	}
	survey, err := p.prober.Survey(ctx, name, rounds)
	if err != nil {
		return status.Probe{}, err
	}
	result.Sent, result.Answered = survey.Sent, survey.Answered
	result.Min, result.Average, result.Max = survey.Min.Microseconds(), survey.Average.Microseconds(), survey.Max.Microseconds()
	result.MTU, result.Largest = survey.MTU, survey.Largest
	if survey.Answered == 0 {
		result.Error = "no probe was answered; check that weftd runs there, that it is not of a version without probes, and that the underlay passes UDP both ways"
	}
	return result, nil
}
