package explain

import (
	"fmt"

	"weft/drop"
	"weft/internal/hostcheck"
	"weft/internal/hostnet"
	"weft/peer"
)

// The drop reasons of each direction.
var (
	outboundReasons = names(drop.SourceNotLocal, drop.NoRoute, drop.DestinationLocal, drop.NoKeys, drop.TooBig, drop.Unreachable,
		drop.SendRefused, drop.SendQueueFull, drop.SendFailed, drop.Unfinished, drop.Unreadable, drop.Malformed)
	inboundReasons = names(drop.UnknownPeer, drop.Truncated, drop.BadHeader, drop.UnknownIndex, drop.Replayed, drop.NotAuthentic, drop.WrongVNI,
		drop.WrongMAC, drop.NotIP, drop.Congestion, drop.SourceNotPeer, drop.DestinationNotLocal, drop.WriteRefused, drop.Unreadable, drop.Malformed)
)

func names(reasons ...drop.Reason) (all []string) {
	for _, r := range reasons {
		all = append(all, r.String())
	}
	return all
}

// refuse says that weftd drops the packet.
func (t *trace) refuse(reason drop.Reason) {
	e := reason.Explain()
	t.step("weftd", "drops it: %s", reason)
	t.fail(e.Remedy, "dropped here by weftd, %s: %s", reason, e.What)
}

// outbound is what weftd does with a packet that it reads from the TUN device: see
// router/outbound.go.
func (t *trace) outbound(way hostnet.Way) {
	if owner, _ := t.Table.Lookup(t.source); owner != t.Table.Self() {
		t.refuse(drop.SourceNotLocal)
		return
	}
	prefix, to, ok := t.Table.Match(t.query.Destination)
	switch {
	case !ok:
		t.refuse(drop.NoRoute)
		return
	case to == t.Table.Self():
		t.refuse(drop.DestinationLocal)
		return
	}
	t.step("weftd", "the forwarding table has %s behind node %s", prefix, to.Name)
	t.answer.Peer, t.answer.SentFrom = to.Name, t.source
	known, up := t.link(to.Name)
	t.step("mtu", "packets of up to %d bytes%s", mtu(way, known), narrower(way, known))
	sent := t.datagram(to)
	t.lately(outboundReasons)
	if !up || !sent {
		return
	}
	t.deliver("sent to %s at %s, %s", to.Name, to.Endpoint, t.encapsulated())
}

// mtu is the size of the largest packets that arrive.
func mtu(way hostnet.Way, p Peer) int {
	size := way.DeviceMTU
	if way.MTU > 0 {
		size = min(size, way.MTU)
	}
	if p.MTU > 0 {
		size = min(size, p.MTU)
	}
	return size
}

// narrower says why that is less than the device takes.
func narrower(way hostnet.Way, p Peer) string {
	switch {
	case p.MTU > 0 && p.MTU < way.DeviceMTU:
		return fmt.Sprintf(": the path to the peer carries no larger ones (the device takes %d)", way.DeviceMTU)
	case way.MTU > 0 && way.MTU < way.DeviceMTU:
		return fmt.Sprintf(": the route says so (the device takes %d)", way.DeviceMTU)
	}
	return ""
}

func (t *trace) encapsulated() string {
	if t.Encapsulation == "sealed" {
		return "encrypted"
	}
	return "in clear (" + t.Encapsulation + ")"
}

// datagram is the way of what weftd sends to a peer's endpoint. If the verdict is not yet that the
// peer does not answer, it says what keeps the datagram from leaving.
func (t *trace) datagram(to *peer.Peer) bool {
	verdict := t.answer.Verdict
	way, err := t.Way(hostnet.Lookup{Destination: to.Endpoint.Addr(), Mark: t.Mask.OwnDatagram()})
	if err != nil {
		t.step("datagram", "to %s: %v", to.Endpoint, err)
		t.fail("check routes and neighbours of the underlay", "dropped here by weftd, %s: %v", drop.Unreachable, err)
		return false
	}
	t.step("datagram", "to %s by %s", to.Endpoint, way)
	p := hostcheck.Packet{
		Out: t.Interface(way.Device), Source: way.Source, Destination: to.Endpoint.Addr(), Protocol: "udp", Port: to.Endpoint.Port(),
		Mark: t.Mask.OwnDatagram(), Untracked: true, FromNode: true, SourceLocal: true,
	}
	for _, hook := range []string{hostcheck.Output, hostcheck.Postrouting} {
		if d, drops := t.Judge(hook, p); drops {
			t.dropped(hook, d)
			return false
		}
	}
	t.answer.Verdict = verdict
	return true
}

// fromPeer is the way of what a peer sends: first its datagrams', then the packet's.
func (t *trace) fromPeer() {
	from, self := t.from.peer, t.Table.Self().Endpoint.Addr()
	t.answer.Peer, t.answer.SentFrom, t.answer.Inbound = from.Name, t.source, true
	back, err := t.Way(hostnet.Lookup{Destination: from.Endpoint.Addr()})
	if err != nil {
		t.step("datagram", "from %s: %v", from.Endpoint, err)
		t.fail("check routes and neighbours of the underlay", "not delivered: the underlay has no way to %s", from.Name)
		return
	}
	t.step("datagram", "from %s by %s", from.Endpoint, back.Device)
	p := hostcheck.Packet{
		In: t.Interface(back.Device), Source: from.Endpoint.Addr(), Destination: self, Protocol: "udp", Port: t.Port,
		Untracked: true, DestLocal: true, SourceRouted: true,
	}
	for _, hook := range []string{hostcheck.Prerouting, hostcheck.Input} {
		if d, drops := t.Judge(hook, p); drops {
			t.dropped(hook, d)
			return
		}
	}
	if _, up := t.link(from.Name); !up {
		return
	}
	t.inbound()
}

// inbound is what weftd does with a peer's packet: see router/inbound.go.
func (t *trace) inbound() {
	t.lately(inboundReasons)
	if owner, _ := t.Table.Lookup(t.query.Destination); owner != t.Table.Self() {
		t.refuse(drop.DestinationNotLocal)
		return
	}
	t.step("weftd", "the source belongs to node %s, and the destination to this node", t.from.peer.Name)
	t.in, t.mark = t.Interface(t.TUN), t.Mask.FromOverlay()
	p := t.packet()
	p.SourceRouted = true
	if t.passes(hostcheck.Prerouting, p) {
		t.forward()
	}
}
