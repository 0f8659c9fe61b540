package daemon

import (
	"weft/internal/hostnet"
	"weft/internal/metrics"
	"weft/ipam"
)

// Sample implements metrics.Daemon.
func (d *daemon) Sample() metrics.Sample {
	v := d.view()
	s := metrics.Sample{
		Node:          d.config.Node,
		Encapsulation: string(d.config.Encapsulation),
		Driver:        string(d.config.TUN.Driver),
		Source:        string(d.config.Control.Source),
		Healthy:       d.Healthy() == nil,
		Ready:         d.Ready() == nil,
		Stats:         d.Stats(),
		Prefixes:      d.Prefixes(),
		Peers:         d.peerSample(v),
		Handshakes:    d.handshakes(),
		Host:          d.hostSample(),
		Warnings:      d.warnings(v),
	}
	s.GSO, s.GRO = d.UDP()
	s.JoinsTCP, s.JoinsUDP = d.Joins()
	if p := d.path.Load(); p != nil {
		s.Lanes = p.router.Lanes()
	}
	if usage, err := d.Leases(); err == nil { // otherwise Unreconciled counts it
		s.Leases = &usage
	}
	s.Reconciled, s.Unreconciled = d.leases.reconciled()

	d.mu.Lock()
	source := d.control
	_, keyChanges := d.engine.KeyChanges()
	s.List = metrics.List{
		Current: d.engine.Current(), Rejections: d.engine.Rejections(), RejectedNodes: d.engine.RejectedNodes() != nil,
		Kept: len(d.engine.Kept()), KeyChanges: keyChanges,
	}
	s.MTU = d.mtu
	d.mu.Unlock()
	if source != nil {
		s.Control.Contact, s.Control.Reachable = source.LastContact()
	}
	return s
}

// Leases returns how pod addresses are used.
func (d *daemon) Leases() (ipam.Usage, error) { return d.leases.usage(d.activePlan()) }

// hostSample asks the kernel for the guard table. What it can't read is reported by /healthz.
func (d *daemon) hostSample() metrics.Host {
	h := metrics.Host{Repairs: d.host.Repairs()}
	h.Guard, _ = d.host.GuardStands()
	if drops, err := hostnet.Drops(); err == nil {
		h.Drops = drops
	}
	return h
}

// handshakes returns what has become of handshakes, or nil with vxlan.
func (d *daemon) handshakes() *metrics.Handshakes {
	if d.keys() == nil {
		return nil
	}
	c := d.keys().manager.Counts()
	return &metrics.Handshakes{Agreed: c.Agreed, Failed: c.Failed, Refused: c.Refused, TurnedAway: c.TurnedAway, Unreachable: c.Unreachable}
}
