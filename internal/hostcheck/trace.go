package hostcheck

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"weft/internal/marks"
)

// weftTable is how rules of the guard table name their sets' table.
const weftTable = "inet " + marks.Table + " "

// Packet is the first one of a connection, and the packet that Filters judge.
type Packet struct {
	In, Out             Interface // of a hook where there is none, the zero Interface
	Source, Destination netip.Addr
	Protocol            string // "tcp" or "udp"
	Port                uint16 // destination port
	Mark                uint32
	Untracked           bool // by connection tracking

	FromNode               bool // a program of this node sends it
	SourceLocal, DestLocal bool // the address is this node's
	SourceRouted           bool // packets to the source would leave by In
	Original               netip.Addr
	// Original is the source before this node translated it; not valid if it has not.
}

// Interface is a network interface of the host.
type Interface struct {
	Name  string
	Kind  string // "veth", "bridge", …
	Group int
}

// Drop is a rule that drops a packet, and whose it is.
type Drop struct {
	Filter  string // as an operator names it
	Counter string // of the guard table; "" if the rule is another program's
	Why     string
	Remedy  string
}

// Filters are the packet filters of a host at one moment, the guard table included.
type Filters struct {
	host Host
	all  tables
}

// The hooks of netfilter, in the order in which a packet meets them: a forwarded one prerouting,
// forward and postrouting; one to this node prerouting and input; one of this node output and
// postrouting.
const (
	Prerouting  = "prerouting"
	Input       = "input"
	Forward     = "forward"
	Output      = "output"
	Postrouting = "postrouting"
)

// Read reads the filters, in the network namespace of the calling thread. An error names what could
// not be read; the rest is there.
func (h Host) Read(ctx context.Context) (Filters, error) {
	guard, err := run(ctx, "nft", "-j", "list", "table", "inet", marks.Table)
	f := Filters{host: h}
	var objects []nftObject
	if err == nil {
		objects, err = parseNFT(guard)
	}
	f.all = chainsOf(objects)
	others, otherErr := readTables(ctx, Prerouting, Input, Forward, Output, Postrouting)
	f.all = append(f.all, others...)
	return f, errors.Join(err, otherErr)
}

// Judge returns the rule that drops a packet at a hook. It reports only what it is sure of.
func (f Filters) Judge(hook string, p Packet) (Drop, bool) {
	probe := p.probe(hook)
	for _, c := range f.all {
		if c.hook != hook || c.nat || c.family == "ip" && probe.v6() || c.family == "ip6" && !probe.v6() {
			continue
		}
		if o := c.judge(probe); o.verdict == drop {
			return f.explain(c, o, p), true
		}
	}
	return Drop{}, false
}

// Masquerades says whether the guard table gives a packet that leaves another source.
func (f Filters) Masquerades(p Packet) bool {
	for _, c := range f.all {
		if c.hook == Postrouting && c.nat && c.family+" "+c.table+" " == weftTable {
			return c.judge(p.probe(Postrouting)).verdict == masquerade
		}
	}
	return false
}

func (p Packet) probe(hook string) probe {
	state := "new"
	if p.Untracked {
		state = "untracked"
	}
	original := p.Source
	if p.Original.IsValid() {
		original = p.Original
	}
	return probe{
		hook: hook, in: p.In.Name, out: p.Out.Name, group: p.In.Group, outGroup: p.Out.Group,
		source: p.Source, dest: p.Destination, protocol: p.Protocol, port: p.Port, state: state,
		facts: &facts{
			mark: p.Mark, kind: p.In.Kind, outKind: p.Out.Kind, socket: p.FromNode, sourceLocal: p.SourceLocal, destLocal: p.DestLocal,
			sourceRouted: p.SourceRouted, source: original, dest: p.Destination, translated: p.Original.IsValid(),
		},
	}
}

// explain names the rule, and what to do.
func (f Filters) explain(c *chain, o outcome, p Packet) Drop {
	if c.family+" "+c.table+" " == weftTable {
		return Drop{Filter: "the guard table", Counter: o.rule.counter, Why: o.rule.comment}
	}
	d := Drop{Filter: c.subject(), Why: o.reason}
	switch {
	case c.hook == "input" && p.Untracked:
		d.Remedy = f.host.remedy(c, []string{toWeftsPort})
	case c.hook == "input", c.hook == "forward":
		d.Remedy = f.host.remedy(c, []string{""})
	default:
		d.Remedy = fmt.Sprintf("have it accept packets of the interfaces %s* and UDP port %d", PodLinks, f.host.Port)
	}
	return d
}

// baseChains returns the tables that have chains of some hooks, but for weft's: "FAMILY TABLE".
func baseChains(listed []byte, hooks []string) ([]string, error) {
	objects, err := parseNFT(listed)
	if err != nil {
		return nil, err
	}
	var wanted []string
	for _, o := range objects {
		if c := o.Chain; c != nil && c.Table != marks.Table && c.Table != marks.NextTable && slices.Contains(hooks, c.Hook) && slices.Contains([]string{"ip", "ip6", "inet"}, c.Family) {
			wanted = append(wanted, c.Family+" "+c.Table)
		}
	}
	slices.Sort(wanted)
	return slices.Compact(wanted), nil
}

// FindInterface returns an interface by its name, the zero Interface if there is none, in the network
// namespace of the calling thread.
func FindInterface(name string) Interface {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return Interface{}
	}
	return Interface{Name: name, Kind: link.Type(), Group: int(link.Attrs().Group)}
}
