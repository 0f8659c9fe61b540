package explain

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"weft/internal/hostcheck"
	"weft/internal/hostnet"
	"weft/internal/marks"
)

// trace follows one packet. Its methods stand in the order in which a packet meets them.
type trace struct {
	Node
	query    Query
	answer   *Answer
	from, to place

	in     hostcheck.Interface
	source netip.Addr // as the packet has it now
	mark   uint32

	// astray says which route of another program takes the packet, or the way back to its source, past
	// where weft's would; "" if none does.
	astray string
}

func (t *trace) step(part, format string, args ...any) {
	t.answer.Steps = append(t.answer.Steps, Step{part, fmt.Sprintf(format, args...)})
}

// fail says that the packet ends here.
func (t *trace) fail(remedy, format string, args ...any) {
	t.answer.Verdict = Verdict{Text: fmt.Sprintf(format, args...), Remedy: remedy}
}

func (t *trace) deliver(format string, args ...any) {
	t.answer.Verdict = Verdict{Delivered: true, Text: fmt.Sprintf(format, args...)}
}

// packet is the packet as rules see it now.
func (t *trace) packet() hostcheck.Packet {
	p := hostcheck.Packet{
		In: t.in, Source: t.source, Destination: t.query.Destination, Protocol: t.query.Protocol, Port: t.query.Port, Mark: t.mark,
		FromNode: t.in.Name == "", SourceLocal: t.from.kind == localNode, DestLocal: t.to.kind == localNode,
	}
	if t.source != t.query.Source {
		p.Original = t.query.Source
	}
	return p
}

// passes says whether all filters at a hook let a packet pass.
func (t *trace) passes(hook string, p hostcheck.Packet) bool {
	d, drops := t.Judge(hook, p)
	if !drops {
		t.step("filters", "at %s, the guard table and other programs' filters let it pass", hook)
		return true
	}
	t.dropped(hook, d)
	return false
}

func (t *trace) dropped(hook string, d hostcheck.Drop) {
	if d.Counter == "" && d.Filter == guardTable {
		t.step("filters", "at %s, the guard table drops it: %s", hook, d.Why)
		t.fail("", "dropped here by the guard table: %s", d.Why)
		return
	}
	if d.Counter != "" {
		e := hostnet.Explain(d.Counter)
		t.step("filters", "at %s, the guard table drops it and counts it as %s: %s", hook, d.Counter, d.Why)
		if t.astray != "" {
			t.fail("remove that route or rule (`weft routes`, `weft doctor`)", "dropped here by the guard table, %s: %s", d.Counter, t.astray)
			return
		}
		t.fail(e.Remedy, "dropped here by the guard table, %s: %s", d.Counter, e.What)
		return
	}
	t.step("filters", "at %s, %s drops it: %s", hook, d.Filter, d.Why)
	t.fail(d.Remedy, "dropped here by another program's filter, %s: %s", d.Filter, d.Why)
}

const guardTable = "the guard table"

// fromPod is the way of what a pod of this node sends.
func (t *trace) fromPod() {
	t.in = t.Interface(t.from.pod.Link)
	if t.in.Name == "" {
		t.fail("run `weft ipam check`", "the pod's link %s does not exist", t.from.pod.Link)
		return
	}
	p := t.packet()
	back, err := t.Way(hostnet.Lookup{Destination: t.source})
	p.SourceRouted = err == nil && back.Device == t.in.Name
	switch {
	case err != nil:
		t.step("route back", "there is none to %s; weftd restores it within 30 seconds", t.source)
	case !p.SourceRouted:
		t.step("route back", "to %s the kernel takes %s, and not %s", t.source, taken(back), t.in.Name)
		t.strays(t.source, back)
	}
	if t.passes(hostcheck.Prerouting, p) {
		t.forward()
	}
}

// fromOutside is the way of what another host sends bare.
func (t *trace) fromOutside() {
	back, err := t.Way(hostnet.Lookup{Destination: t.source})
	if err != nil {
		t.step("route", "%v", err)
		t.fail("", "not known here: this node has no route to %s, so it can't be said by which interface its packets come", t.source)
		return
	}
	t.in = t.Interface(back.Device)
	t.step("arrives", "by %s, not encapsulated", back.Device)
	p := t.packet()
	p.SourceRouted = true
	if t.passes(hostcheck.Prerouting, p) {
		t.forward()
	}
}

// forward is routing, and what follows it, of a packet that comes by an interface.
func (t *trace) forward() {
	way, ok := t.route(hostnet.Lookup{Source: t.source, Destination: t.query.Destination, In: t.in.Name, Mark: t.mark})
	if !ok {
		return
	}
	p := t.packet()
	if way.Type == "local" {
		if t.passes(hostcheck.Input, p) {
			t.deliver("delivered to this node, %s, itself", t.Name)
		}
		return
	}
	p.Out = t.Interface(way.Device)
	if !t.passes(hostcheck.Forward, p) {
		return
	}
	t.leave(way, p)
}

// fromNode is the way of what a program of this node sends.
func (t *trace) fromNode() {
	way, ok := t.route(hostnet.Lookup{Source: t.source, Destination: t.query.Destination})
	if !ok {
		return
	}
	p := t.packet()
	p.Out = t.Interface(way.Device)
	if !t.passes(hostcheck.Output, p) {
		return
	}
	if way.Type == "local" {
		t.deliver("delivered to this node, %s, itself", t.Name)
		return
	}
	t.leave(way, p)
}

// route asks the kernel, and says what becomes of a packet without a route.
func (t *trace) route(l hostnet.Lookup) (hostnet.Way, bool) {
	way, err := t.Way(l)
	if err == nil {
		t.step("route", "the kernel takes %s", taken(way))
		if t.to.kind == atPeer && t.from.kind == localPod && way.Device != t.TUN {
			t.strays(t.query.Destination, way)
		}
		return way, true
	}
	t.step("route", "%v", err)
	if !errors.As(err, new(hostnet.Unroutable)) {
		t.fail("", "not known: %v", err)
		return way, false
	}
	switch t.to.kind {
	case nobody:
		t.fail("check that the node is in the list of nodes (`weft routes`)", "dropped here: no node has the destination %s; the sender receives ICMP unreachable", t.query.Destination)
	case vacant:
		t.fail("check the pod's address (`weft ipam list`)", "dropped here: no pod of this node has the destination %s; the sender receives ICMP unreachable", t.query.Destination)
	case localPod:
		t.fail("weftd restores the route within 30 seconds; `weft ipam check` shows what is missing", "dropped here: %v", err)
	default:
		t.fail("see `weft routes` and `ip route get`", "dropped here: %v", err)
	}
	return way, false
}

// taken is a way, and the rule that leads to it.
func taken(w hostnet.Way) string {
	if w.Rule == "" {
		return w.String()
	}
	return w.String() + " (routing rule " + w.Rule + ")"
}

// strays notes that a way is another program's.
func (t *trace) strays(to netip.Addr, way hostnet.Way) {
	if !way.Own() {
		t.astray = fmt.Sprintf("another program's route takes packets to %s elsewhere: %s", to, taken(way))
	}
}

// leave is the last part of the kernel's: a new source, if it gets one, and the last filters.
func (t *trace) leave(way hostnet.Way, p hostcheck.Packet) {
	if t.Masquerades(p) {
		own, err := t.Way(hostnet.Lookup{Destination: t.query.Destination})
		if err == nil && own.Source.IsValid() {
			t.source = own.Source
		}
		t.step("masquerade", "the guard table gives it the source %s", t.source)
		p.Source, p.Original = t.source, t.query.Source
	}
	if !t.passes(hostcheck.Postrouting, p) {
		return
	}
	switch {
	case way.Device == t.TUN:
		t.outbound(way)
	case p.Out.Group == marks.PodLinkGroup:
		if t.to.kind != localPod || t.to.pod.Link != way.Device {
			t.fail("run `weft ipam check`", "sent to the pod behind %s, which has no lease of %s", way.Device, t.query.Destination)
			return
		}
		t.deliver("delivered to %s of this node by %s", t.to.pod, way.Device)
	case t.to.kind == atPeer && t.from.kind == localPod:
		t.fail("look for another program's route or rule (`weft routes`)", "leaves past the overlay by %s", way.Device)
	case t.from.kind == outside && t.to.kind == outside:
		t.deliver("forwarded by %s; it is no packet of the overlay", way.Device)
	default:
		t.deliver("leaves this node by %s with the source %s, outside the overlay", way.Device, t.source)
	}
}

// lately names what was dropped in the last minute, of some reasons.
func (t *trace) lately(reasons []string) {
	var all []string
	add := func(by string, drops map[string]uint64, keep func(string) bool) {
		for _, name := range slices.Sorted(maps.Keys(drops)) {
			if keep(name) {
				all = append(all, fmt.Sprintf("%d %s%s", drops[name], by, name))
			}
		}
	}
	add("", t.Drops, func(name string) bool { return slices.Contains(reasons, name) })
	add("by the guard table ", t.GuardDrops, func(string) bool { return true })
	if len(all) > 0 {
		t.step("drops", "in the last minute, of all packets: %s", strings.Join(all, ", "))
	}
}

// link says how this node and the peer stand, and whether the peer answers.
func (t *trace) link(name string) (p Peer, up bool) {
	p = t.Peers[name]
	switch {
	case p.Down:
		t.step("peer", "%s does not answer: %s", name, cmp.Or(p.Error, "the reason is not known"))
		t.fail("", "not delivered: peer %s is unreachable: %s", name, cmp.Or(p.Error, "it does not answer; `weft peers` says more"))
		return p, false
	case p.State == "no keys", p.State == "agreeing":
		t.step("peer", "%s: %s; the first packets wait until keys are agreed", name, p.State)
	case p.State == "unknown":
		t.step("peer", "%s: nothing shows yet whether it answers; `weft probe %s` asks", name, name)
	case p.Loss > 0:
		t.step("peer", "%s: %s; %.0f %% of the last probes got no answer", name, p.State, 100*p.Loss)
	default:
		t.step("peer", "%s: %s", name, p.State)
	}
	return p, true
}
