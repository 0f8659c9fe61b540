package hostcheck

import (
	"strconv"
	"strings"
)

// parseIPTables reads the table filter of what iptables-save prints.
func parseIPTables(family, text string, legacy bool) (all tables) {
	hooks := map[string]string{"FORWARD": "forward", "INPUT": "input"}
	byName := map[string]*chain{}
	filter := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			filter = line == "*filter"
		case !filter:
		case strings.HasPrefix(line, ":"):
			fields := strings.Fields(line[1:])
			if len(fields) >= 2 {
				c := &chain{
					family: family, table: "filter", name: fields[0], hook: hooks[fields[0]],
					dropsByPolicy: fields[1] == "DROP", legacy: legacy, iptables: true, siblings: byName,
				}
				byName[c.name] = c
				all = append(all, c)
			}
		case strings.HasPrefix(line, "-A "):
			words := splitWords(line)
			if len(words) < 2 {
				continue
			}
			if c := byName[words[1]]; c != nil {
				c.rules = append(c.rules, iptablesRule(words[2:], line))
			}
		}
	}
	return all
}

// splitWords splits a line at spaces that stand in no quotes.
func splitWords(line string) (words []string) {
	var word strings.Builder
	quoted, begun := false, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && quoted && i+1 < len(line):
			i++
			word.WriteByte(line[i])
		case c == '"':
			quoted, begun = !quoted, true
		case c == ' ' && !quoted:
			if begun || word.Len() > 0 {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteByte(c)
		}
	}
	return append(words, word.String())
}

// iptablesRule reads one rule's words, as of iptables-save.
func iptablesRule(words []string, text string) rule {
	r := rule{text: text}
	negated := false
	for i := 0; i < len(words); i++ {
		value := func() string {
			if i++; i < len(words) {
				return words[i]
			}
			return ""
		}
		add := func(c condition) {
			if negated {
				positive := c
				c = func(p probe) answer { return positive(p).not() }
			}
			r.conditions = append(r.conditions, c)
			negated = false
		}
		switch words[i] {
		case "!":
			negated = true
		case "-i":
			name := value()
			add(func(p probe) answer { return interfaceIs(name, p.in) })
		case "-o":
			name := value()
			add(func(p probe) answer { return interfaceIs(name, p.out) })
		case "-s":
			prefix := value()
			add(func(p probe) answer { return addrIn(prefix, p.source) })
		case "-d":
			prefix := value()
			add(func(p probe) answer { return addrIn(prefix, p.dest) })
		case "-p":
			name := value()
			add(func(p probe) answer { return is(name == p.protocol || name == "all") })
		case "--dport", "--dports":
			ports := value()
			add(func(p probe) answer { return portListed(ports, p.port) })
		case "--ctstate", "--state":
			states := value()
			add(func(p probe) answer { return stateListed(states, p) })
		case "--dst-type":
			kind := value()
			add(func(p probe) answer {
				return is((kind == "LOCAL") == (p.hook == "input") && (kind == "LOCAL" || kind == "UNICAST"))
			})
		case "--mark", "--nfmark":
			mark := value()
			add(func(probe) answer {
				value, _, _ := strings.Cut(mark, "/")
				n, err := strconv.ParseUint(value, 0, 32)
				if err != nil {
					return perhaps
				}
				return is(n == 0)
			})
		case "-m":
			switch value() {
			case "addrtype", "comment", "conntrack", "state", "tcp", "udp", "multiport", "mark":
			case "icmp", "icmp6":
				add(func(probe) answer { return no })
			default:
				add(maybe)
			}
		case "--comment":
			value()
		case "-j", "-g":
			kind := jump
			if words[i] == "-g" {
				kind = gotoChain
			}
			r.verdict, r.target = iptablesVerdict(value(), kind)
			return r // what follows are options of the target
		default:
			if strings.HasPrefix(words[i], "-") {
				add(maybe)
			}
		}
	}
	return r
}

func iptablesVerdict(target string, kind verdict) (verdict, string) {
	switch target {
	case "ACCEPT":
		return accept, ""
	case "DROP", "REJECT":
		return drop, ""
	case "RETURN":
		return leave, ""
	case "LOG", "NFLOG", "ULOG", "MARK", "CONNMARK", "CONNSECMARK", "SECMARK", "TCPMSS", "TOS", "DSCP", "AUDIT", "TRACE", "CT", "NOTRACK", "CLASSIFY", "TTL", "HL", "CHECKSUM", "SET":
		return goOn, ""
	case "QUEUE", "NFQUEUE", "TPROXY":
		return unknown, ""
	}
	return kind, target
}

func interfaceIs(pattern, name string) answer {
	if prefix, wild := strings.CutSuffix(pattern, "+"); wild {
		return is(strings.HasPrefix(name, prefix))
	}
	return is(pattern == name)
}

func portListed(list string, port uint16) answer {
	for entry := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(entry, ":")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err1 != nil || err2 != nil {
			return perhaps
		}
		if from <= uint64(port) && uint64(port) <= to {
			return yes
		}
	}
	return no
}

func stateListed(list string, p probe) answer {
	for s := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(s, p.state) {
			return yes
		}
	}
	return no
}
