package hostcheck

import "net/netip"

// probe is a packet that weft needs to pass.
type probe struct {
	what         string // of many: "packets from pods to the outside"
	hook         string // "forward" or "input"
	in, out      string // interfaces; out is "" on the hook input
	source, dest netip.Addr
	protocol     string // "tcp" or "udp"
	port         uint16 // destination port
	state        string // of connection tracking: "new", "established" or "untracked"
	group        int    // of the interface in, and of out
	outGroup     int

	// facts are what else is known of one real packet; nil for the example of many.
	facts *facts
}

func (p probe) v6() bool { return p.source.Is6() || p.dest.Is6() }

// answer says whether a packet meets a condition. Without knowledge it is perhaps.
type answer int

const (
	no answer = iota
	perhaps
	yes
)

func is(b bool) answer {
	if b {
		return yes
	}
	return no
}

func (a answer) not() answer { return yes - a }

// condition is one of a rule's.
type condition func(probe) answer

// verdict is what a rule does with the packets that meet all of its conditions.
type verdict int

const (
	goOn   verdict = iota // counts, logs, marks
	accept                // ends this chain only: others of the hook follow
	drop
	jump
	gotoChain
	leave      // back to the chain that jumped here
	masquerade // accepts, with another source
	unknown    // may be any
)

type rule struct {
	conditions []condition
	verdict    verdict
	target     string // of jump and gotoChain
	text       string
	counter    string // a named one that counts what meets the conditions
	comment    string

	// choices are further pairs of conditions and verdicts, as of a verdict map: the first
	// that holds counts.
	choices []rule
}

func (r rule) holds(p probe) answer {
	all := yes
	for _, c := range r.conditions {
		all = min(all, c(p))
	}
	return all
}

// chain is a chain of some table, of nftables or of legacy iptables.
type chain struct {
	family, table, name string
	hook                string // "" if it is no base chain
	nat                 bool
	dropsByPolicy       bool
	rules               []rule
	legacy              bool // of iptables-legacy
	iptables            bool // of iptables, legacy or not

	siblings map[string]*chain // the table's chains by name, itself included: rules jump to them
}

// outcome of a chain: what surely happens to a probe.
type outcome struct {
	verdict verdict // goOn, accept, masquerade or drop
	reason  string  // of drop
	maybe   bool    // it may have been accepted before
	rule    rule    // that drops
}

// mostJumps bounds the depth of chains that jump to each other, and mostRules how many rules one probe
// meets: chains that jump to each other from many rules have more ways than can be followed. Real
// filters of 10,000 rules stay far below.
const (
	mostJumps = 16
	mostRules = 100_000
)

// judge returns what a base chain does with a probe. It says drop only if no rule before
// that may accept the packet.
func (c *chain) judge(p probe) outcome {
	o := (&walk{probe: p, left: mostRules}).through(c, 0)
	if o.verdict == goOn {
		o.verdict = accept
		if c.dropsByPolicy {
			o.verdict, o.reason = drop, "its policy is drop"
		}
	}
	if o.maybe {
		o.verdict = accept
	}
	return o
}

// walk is a probe's way through the chains of a table.
type walk struct {
	probe probe
	left  int // how many rules it may still meet
}

func (w *walk) through(c *chain, depth int) outcome {
	maybe, left := false, false // left: the packet may have left the chain before
	for _, first := range c.rules {
		for i := range 1 + len(first.choices) {
			r := first
			if i > 0 {
				r = first.choices[i-1]
			}
			if w.left--; w.left < 0 {
				return outcome{verdict: goOn, maybe: true}
			}
			holds := r.holds(w.probe)
			if holds == no {
				continue
			}
			o := w.apply(c, r, depth)
			maybe = maybe || o.maybe
			switch {
			case r.verdict == goOn:
				continue
			case holds == perhaps, r.verdict == unknown:
				maybe = maybe || o.verdict == accept || r.verdict == unknown
				left = left || r.verdict == leave || r.verdict == gotoChain
			case o.verdict == drop && left:
				return outcome{verdict: goOn, maybe: true}
			case o.verdict != goOn:
				return outcome{o.verdict, o.reason, maybe, o.rule}
			case r.verdict == leave, r.verdict == gotoChain:
				return outcome{verdict: goOn, maybe: maybe}
			}
			break
		}
	}
	return outcome{verdict: goOn, maybe: maybe}
}

func (w *walk) apply(c *chain, r rule, depth int) outcome {
	switch r.verdict {
	case accept, masquerade:
		return outcome{verdict: r.verdict}
	case drop:
		return outcome{verdict: drop, reason: "rule " + r.text, rule: r}
	case jump, gotoChain:
		target := c.siblings[r.target]
		if target == nil || depth >= mostJumps {
			return outcome{verdict: goOn, maybe: true}
		}
		o := w.through(target, depth+1)
		if o.verdict == drop {
			o.reason = o.reason + " in chain " + r.target
		}
		return o
	default:
		return outcome{verdict: goOn}
	}
}

// tables are all chains of the host but weft's own.
type tables []*chain
