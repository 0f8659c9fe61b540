package hostcheck

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
)

// facts are what rules may ask of a real packet beside its addresses and interfaces. Without
// them, the answer is perhaps.
type facts struct {
	mark                   uint32
	kind, outKind          string // of the interfaces: "veth", "bridge"
	socket                 bool   // a program of this node sends it
	sourceLocal, destLocal bool   // the address is this node's
	sourceRouted           bool   // the way back to the source is the interface that it comes from
	source, dest           netip.Addr
	translated             bool // from another source: the one above is the original one
}

func (p probe) mark() uint32 {
	if p.facts == nil {
		return 0
	}
	return p.facts.mark
}

func (f *facts) meta(key string, value json.RawMessage) answer {
	switch {
	case f == nil:
		return perhaps
	case key == "skuid": // of any user: what is compared with is a range that has all
		return is(f.socket)
	case key == "iifkind":
		return sameWord(value, f.kind)
	default:
		return sameWord(value, f.outKind)
	}
}

func (f *facts) direction(value json.RawMessage) answer {
	if f == nil {
		return perhaps
	}
	return sameWord(value, "original")
}

// status is what connection tracking has done to the packet's addresses: "" is nothing.
func (f *facts) status() string {
	if f != nil && f.translated {
		return "snat"
	}
	return ""
}

// original compares an address that the connection's first packet had.
func (f *facts) original(key, dir string, p probe, value json.RawMessage) answer {
	if f == nil || dir != "original" {
		return perhaps
	}
	if p.v6() != strings.HasPrefix(key, "ip6") {
		return no
	}
	if strings.HasSuffix(key, "saddr") {
		return inRange(value, f.source)
	}
	return inRange(value, f.dest)
}

// nftFIB is a lookup of the kernel's routes.
type nftFIB struct {
	Result string
	Flags  []string
}

func (n *nftFIB) is(p probe, value json.RawMessage) answer {
	ofSource := slices.Contains(n.Flags, "saddr")
	if n.Result == "type" {
		kind := "unicast"
		switch {
		case p.facts == nil && p.hook == "input",
			p.facts != nil && ofSource && p.facts.sourceLocal,
			p.facts != nil && !ofSource && p.facts.destLocal:
			kind = "local"
		}
		return sameWord(value, kind)
	}
	var exists bool
	if p.facts == nil || !ofSource || json.Unmarshal(value, &exists) != nil {
		return perhaps
	}
	return is(exists == p.facts.sourceRouted)
}

// concat compares several expressions with the parts of a value.
func (n nftRule) concat(left []json.RawMessage, p probe, value json.RawMessage) answer {
	var v struct{ Concat []json.RawMessage }
	if p.facts == nil || json.Unmarshal(value, &v) != nil || len(v.Concat) != len(left) {
		return perhaps
	}
	all := yes
	for i, part := range left {
		all = min(all, n.compare(part, []json.RawMessage{v.Concat[i]})(p))
	}
	return all
}

// passing is the condition that a set holds which packets fill. What it holds doesn't change what
// becomes of a packet: it only saves the rules that come behind.
func (n nftRule) passing() condition {
	return func(p probe) answer {
		if p.facts == nil || n.table != weftTable {
			return perhaps
		}
		return no
	}
}
