package hostcheck

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

// nftObject is an object of nft's JSON (libnftables-json(5)).
type nftObject struct {
	Chain *struct {
		Family, Table, Name, Type, Hook, Policy string
	} `json:"chain"`
	Rule *struct {
		Family, Table, Chain, Comment string
		Handle                        int
		Expr                          []map[string]json.RawMessage
	} `json:"rule"`
	Set *nftSet `json:"set"`
	Map *nftSet `json:"map"`
}

type nftSet struct {
	Family, Table, Name string
	Flags               []string
	Elem                []json.RawMessage
}

// filledByRules says whether packets fill the set: what it holds is gone in a moment.
func (s *nftSet) filledByRules() bool {
	return slices.Contains(s.Flags, "timeout") || slices.Contains(s.Flags, "dynamic")
}

// parseNFT reads what `nft -j list ...` prints.
func parseNFT(text []byte) ([]nftObject, error) {
	var all struct{ Nftables []nftObject }
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("read what nft prints: %w", err)
	}
	return all.Nftables, nil
}

// chainsOf makes chains of nft's objects.
func chainsOf(objects []nftObject) (all tables) {
	sets := map[string]*nftSet{}
	byTable := map[string]map[string]*chain{} // of "FAMILY TABLE ", by name
	for _, o := range objects {
		if c := o.Chain; c != nil {
			table := c.Family + " " + c.Table + " "
			if byTable[table] == nil {
				byTable[table] = map[string]*chain{}
			}
			made := &chain{
				family: c.Family, table: c.Table, name: c.Name, hook: c.Hook, nat: c.Type == "nat", dropsByPolicy: c.Policy == "drop",
				siblings: byTable[table],
			}
			made.siblings[c.Name] = made
			all = append(all, made)
		}
		for _, s := range []*nftSet{o.Set, o.Map} {
			if s != nil {
				sets[s.Family+" "+s.Table+" @"+s.Name] = s
			}
		}
	}
	for _, o := range objects {
		if o.Rule == nil {
			continue
		}
		table := o.Rule.Family + " " + o.Rule.Table + " "
		if c := byTable[table][o.Rule.Chain]; c != nil {
			parser := nftRule{sets: sets, table: table}
			r := parser.parse(o.Rule.Expr, fmt.Sprintf("with handle %d", o.Rule.Handle))
			r.comment = o.Rule.Comment
			c.rules = append(c.rules, r)
		}
	}
	return all
}

// nftRule turns one rule's expressions into conditions and a verdict.
type nftRule struct {
	sets  map[string]*nftSet
	table string // "FAMILY TABLE "
}

func (n nftRule) parse(exprs []map[string]json.RawMessage, text string) rule {
	r := rule{text: text}
	for _, e := range exprs {
		for kind, value := range e {
			switch kind {
			case "match":
				r.conditions = append(r.conditions, n.match(value))
			case "vmap":
				n.verdictMap(&r, value)
			case "counter":
				_ = json.Unmarshal(value, &r.counter) // or it has no name
			case "xt":
				if !strings.Contains(string(value), `"comment"`) {
					r.conditions = append(r.conditions, maybe)
				}
			case "limit", "quota", "ct count", "meter", "connlimit":
				r.conditions = append(r.conditions, maybe)
			default:
				if v, target, known := nftVerdict(kind, value); known {
					r.verdict, r.target = v, target
				}
			}
		}
	}
	return r
}

func maybe(probe) answer { return perhaps }

func nftVerdict(kind string, value json.RawMessage) (v verdict, target string, known bool) {
	verdicts := map[string]verdict{
		"accept": accept, "drop": drop, "reject": drop, "return": leave, "queue": unknown,
		"jump": jump, "goto": gotoChain, "continue": goOn, "tproxy": unknown, "flow": goOn, "masquerade": masquerade,
	}
	v, known = verdicts[kind]
	var to struct{ Target string }
	if v == jump || v == gotoChain {
		_ = json.Unmarshal(value, &to)
	}
	return v, to.Target, known
}

// verdictMap adds a rule for each element of a map.
func (n nftRule) verdictMap(r *rule, value json.RawMessage) {
	var m struct {
		Key, Data json.RawMessage
	}
	if json.Unmarshal(value, &m) != nil {
		r.verdict = unknown
		return
	}
	for _, e := range n.elements(m.Data) {
		var pair [2]json.RawMessage
		var does map[string]json.RawMessage
		if json.Unmarshal(e, &pair) != nil || json.Unmarshal(pair[1], &does) != nil {
			r.verdict = unknown
			continue
		}
		choice := rule{text: r.text, conditions: append(slices.Clone(r.conditions), n.compare(m.Key, []json.RawMessage{pair[0]}))}
		for kind, v := range does {
			choice.verdict, choice.target, _ = nftVerdict(kind, v)
		}
		r.choices = append(r.choices, choice)
	}
}

// match reads a comparison.
func (n nftRule) match(value json.RawMessage) condition {
	var m struct {
		Op          string
		Left, Right json.RawMessage
	}
	if json.Unmarshal(value, &m) != nil {
		return maybe
	}
	c := n.compare(m.Left, n.elements(m.Right))
	var name string
	if json.Unmarshal(m.Right, &name) == nil {
		if set := n.sets[n.table+name]; set != nil && set.filledByRules() {
			c = n.passing()
		}
	}
	switch m.Op {
	case "==", "in":
		return c
	case "!=":
		return func(p probe) answer { return c(p).not() }
	default:
		return maybe
	}
}

// elements returns the members of a set, or the value alone.
func (n nftRule) elements(value json.RawMessage) []json.RawMessage {
	var name string
	if json.Unmarshal(value, &name) == nil && strings.HasPrefix(name, "@") {
		if set := n.sets[n.table+name]; set != nil {
			return set.Elem
		}
		return []json.RawMessage{json.RawMessage(`{"unknown":true}`)}
	}
	var set struct{ Set []json.RawMessage }
	if json.Unmarshal(value, &set) == nil && set.Set != nil {
		return set.Set
	}
	var list []json.RawMessage
	if json.Unmarshal(value, &list) == nil && list != nil {
		return list
	}
	return []json.RawMessage{value}
}

// compare says whether what left names is one of some values.
func (n nftRule) compare(left json.RawMessage, values []json.RawMessage) condition {
	var l struct {
		Meta    *struct{ Key string }
		Payload *struct{ Protocol, Field string }
		CT      *struct{ Key, Dir string }
		FIB     *nftFIB
		And     []json.RawMessage `json:"&"`
		Concat  []json.RawMessage
	}
	if json.Unmarshal(left, &l) != nil {
		return maybe
	}
	anyOf := func(test func(p probe, value json.RawMessage) answer) condition {
		return func(p probe) answer {
			best := no
			for _, v := range values {
				best = max(best, test(p, v))
			}
			return best
		}
	}
	words := func(of func(p probe) string) condition {
		return anyOf(func(p probe, v json.RawMessage) answer { return sameWord(v, of(p)) })
	}
	switch {
	case l.Meta != nil:
		switch l.Meta.Key {
		case "iifname", "iif":
			return words(func(p probe) string { return p.in })
		case "oifname", "oif":
			return words(func(p probe) string { return p.out })
		case "iifgroup":
			return words(func(p probe) string { return strconv.Itoa(p.group) })
		case "oifgroup":
			return words(func(p probe) string { return strconv.Itoa(p.outGroup) })
		case "l4proto":
			return words(func(p probe) string { return p.protocol })
		case "nfproto":
			return words(func(p probe) string {
				if p.v6() {
					return "ipv6"
				}
				return "ipv4"
			})
		case "mark":
			return words(func(p probe) string { return strconv.FormatUint(uint64(p.mark()), 10) })
		case "iifkind", "oifkind", "skuid":
			return anyOf(func(p probe, v json.RawMessage) answer { return p.facts.meta(l.Meta.Key, v) })
		}
	case l.FIB != nil:
		return anyOf(func(p probe, v json.RawMessage) answer { return l.FIB.is(p, v) })
	case len(l.Concat) > 0:
		return anyOf(func(p probe, v json.RawMessage) answer { return n.concat(l.Concat, p, v) })
	case l.CT != nil:
		switch l.CT.Key {
		case "state":
			return words(func(p probe) string { return p.state })
		case "status":
			return words(func(p probe) string { return p.facts.status() })
		case "direction":
			return anyOf(func(p probe, v json.RawMessage) answer { return p.facts.direction(v) })
		case "ip saddr", "ip6 saddr", "ip daddr", "ip6 daddr":
			return anyOf(func(p probe, v json.RawMessage) answer { return p.facts.original(l.CT.Key, l.CT.Dir, p, v) })
		case "mark":
			return anyOf(func(_ probe, v json.RawMessage) answer { return sameWord(v, "0") })
		}
	case len(l.And) > 0 && (strings.Contains(string(l.And[0]), `"mark"`)):
		var mask uint32
		if len(l.And) != 2 || json.Unmarshal(l.And[1], &mask) != nil {
			mask = 0 // so that the mark counts as 0
		}
		return words(func(p probe) string { return strconv.FormatUint(uint64(p.mark()&mask), 10) })
	case l.Payload != nil:
		switch field := l.Payload.Protocol + " " + l.Payload.Field; field {
		case "ip saddr", "ip daddr", "ip6 saddr", "ip6 daddr":
			return anyOf(func(p probe, v json.RawMessage) answer {
				if p.v6() != strings.HasPrefix(field, "ip6") {
					return no
				}
				if strings.HasSuffix(field, "saddr") {
					return inRange(v, p.source)
				}
				return inRange(v, p.dest)
			})
		case "tcp dport", "udp dport", "th dport":
			return anyOf(func(p probe, v json.RawMessage) answer {
				if l.Payload.Protocol != "th" && l.Payload.Protocol != p.protocol {
					return no
				}
				return portIn(v, p.port)
			})
		case "ip protocol", "ip6 nexthdr":
			return words(func(p probe) string {
				if p.v6() != (l.Payload.Protocol == "ip6") {
					return "-"
				}
				return p.protocol
			})
		case "icmp type", "icmpv6 type", "ip6 hoplimit":
			return func(probe) answer { return no }
		}
	}
	return maybe
}

// sameWord says whether a value is a word or number; a * at its end stands for anything.
func sameWord(value json.RawMessage, word string) answer {
	var text string
	var number uint32
	switch {
	case json.Unmarshal(value, &number) == nil:
		text = strconv.FormatUint(uint64(number), 10)
	case json.Unmarshal(value, &text) != nil:
		return perhaps
	}
	text = strings.NewReplacer("[", `\[`, `\`, `\\`, "?", `\?`).Replace(text)
	matches, err := path.Match(text, word)
	if err != nil {
		return perhaps
	}
	return is(matches)
}

// inRange says whether an address is in {"prefix":…}, {"range":…} or is the value itself.
// Without an address it is anywhere.
func inRange(value json.RawMessage, addr netip.Addr) answer {
	var v struct {
		Prefix *struct {
			Addr string
			Len  int
		}
		Range []string
	}
	var text string
	switch {
	case json.Unmarshal(value, &text) == nil:
		return addrIn(text, addr)
	case json.Unmarshal(value, &v) != nil:
		return perhaps
	case v.Prefix != nil:
		return addrIn(fmt.Sprintf("%s/%d", v.Prefix.Addr, v.Prefix.Len), addr)
	case len(v.Range) == 2:
		first, err1 := netip.ParseAddr(v.Range[0])
		last, err2 := netip.ParseAddr(v.Range[1])
		if err1 != nil || err2 != nil || !addr.IsValid() {
			return perhaps
		}
		return is(first.Compare(addr) <= 0 && addr.Compare(last) <= 0)
	}
	return perhaps
}

// addrIn says whether an address is in a prefix, or is the one that text is.
func addrIn(text string, addr netip.Addr) answer {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		single, err := netip.ParseAddr(text)
		if err != nil {
			return perhaps
		}
		prefix = netip.PrefixFrom(single, single.BitLen())
	}
	switch {
	case prefix.Bits() == 0:
		return yes
	case !addr.IsValid() || addr.IsUnspecified():
		return perhaps
	}
	return is(prefix.Contains(addr))
}

func portIn(value json.RawMessage, port uint16) answer {
	var v struct{ Range []uint16 }
	var number uint16
	switch {
	case json.Unmarshal(value, &number) == nil:
		return is(number == port)
	case json.Unmarshal(value, &v) == nil && len(v.Range) == 2:
		return is(v.Range[0] <= port && port <= v.Range[1])
	}
	return perhaps
}
