// Package hostcheck looks for what other programs on the host have set up that drops weft's
// packets: filters of Docker, firewalld, ufw and others, and routing rules in front of weft's.
// It names each with the remedy, and can have the filters accept pods' packets.
//
// It reads what nft, iptables and the kernel say, in the network namespace of the calling
// thread. Of a filter it follows the rules for a few typical packets, and reports only what
// it is sure of: where it doesn't understand a condition, it assumes the best.
package hostcheck

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"go4.org/netipx"

	"weft/internal/family"
	"weft/internal/marks"
	"weft/internal/warning"
)

// The codes of the warnings.
const (
	CodeForward = "host_forward_filter" // drops what pods send or receive
	CodeInput   = "host_input_filter"   // drops other nodes' datagrams, or pods' packets to the node
	CodeRule    = "host_routing_rule"   // sends pods' packets elsewhere

	CodeUnreadable = "host_unreadable" // some filters can't be read
)

// PodLinks is the beginning of the names of pods' links on the host, and of the TUN device's
// by default.
const PodLinks = "weft"

// Host is what weft needs to pass on a host.
type Host struct {
	TUN          string
	Port         uint16 // that receives other nodes' datagrams
	ClusterCIDRs []netip.Prefix
	PodCIDRs     []netip.Prefix // this node's

	// AcceptChain names a chain of nftables that AcceptForward extends, as
	// host.acceptForwardChain has it; "" is iptables.
	AcceptChain string
}

// Look returns what drops weft's packets. What it can't read it leaves out.
func (h Host) Look(ctx context.Context) []warning.Warning {
	filters, err := readTables(ctx, Forward, Input)
	all := h.inspect(filters)
	if err != nil {
		all = append(all, warning.Warning{Code: CodeUnreadable, Text: "the host's packet filters can't be read: " + err.Error() + "; install nftables"})
	}
	rules, err := readRules()
	if err == nil {
		all = append(all, h.inspectRules(rules)...)
	}
	return warning.Sort(all)
}

// readTables reads the filters of the host at some hooks, but for weft's: nftables, and iptables in both
// of its kinds.
func readTables(ctx context.Context, hooks ...string) (all tables, err error) {
	listed, err := run(ctx, "nft", "-j", "list", "chains")
	if err != nil {
		return nil, err
	}
	wanted, err := baseChains(listed, hooks)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, table := range wanted {
		// iptables prints what nft doesn't understand of its rules.
		if chains := readIPTables(ctx, table); chains != nil {
			all = append(all, chains...)
			continue
		}
		family, name, _ := strings.Cut(table, " ")
		text, err := run(ctx, "nft", "-j", "list", "table", family, name)
		var objects []nftObject
		if err == nil {
			objects, err = parseNFT(text)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, chainsOf(objects)...)
	}
	for family, command := range map[string]string{"ip": "iptables-legacy-save", "ip6": "ip6tables-legacy-save"} {
		if !legacyStands(family) {
			continue
		}
		if text, err := run(ctx, command, "-t", "filter"); err == nil {
			all = append(all, parseIPTables(family, string(text), true)...)
		}
	}
	return all, errors.Join(errs...)
}

// legacyStands says whether the kernel has tables of iptables-legacy. Asking them of the
// program would make them.
func legacyStands(family string) bool {
	names, err := os.ReadFile("/proc/thread-self/net/" + family + "_tables_names")
	return err == nil && strings.Contains(string(names), "filter")
}

// readIPTables returns the chains of a table of iptables-nft, nil if it is none.
func readIPTables(ctx context.Context, table string) tables {
	program := map[string]string{"ip filter": "iptables-nft-save", "ip6 filter": "ip6tables-nft-save"}[table]
	if program == "" {
		return nil
	}
	text, err := run(ctx, program, "-t", "filter")
	if err != nil {
		return nil
	}
	family, _, _ := strings.Cut(table, " ")
	return parseIPTables(family, string(text), false)
}

// runLimit is how long a program may take that lists filters: thousands of rules take a second.
const runLimit = time.Minute

// run returns what a program prints.
func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	var stderr strings.Builder
	ctx, cancel := context.WithTimeoutCause(ctx, runLimit, fmt.Errorf("it has not ended for %v", runLimit))
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w %s", name, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// toWeftsPort is what the probe is of that is no pod's packet.
const toWeftsPort = "from other nodes to weft's port"

// probes are the packets that must pass.
func (h Host) probes() (all []probe) {
	const outside, pod, other = "eth-uplink", PodLinks + "0123456789a", PodLinks + "ba987654321"
	for _, prefix := range h.PodCIDRs {
		local := prefix.Addr().Next().Next()
		neighbour := local.Next()
		f := family.Of(local)
		remote, anywhere := neighbour, f.Unspecified()
		for _, c := range f.Prefixes(h.ClusterCIDRs) {
			remote = netipx.PrefixLastIP(c).Prev() // no broadcast address
		}
		base := probe{hook: "forward", protocol: "tcp", port: 20080, state: "new", group: marks.PodLinkGroup, outGroup: marks.PodLinkGroup}
		add := func(what, in, out string, source, dest netip.Addr) {
			p := base
			p.what, p.in, p.out, p.source, p.dest = what, in, out, source, dest
			if in == h.TUN || in == outside {
				p.group = 0
			}
			if out == h.TUN || out == outside {
				p.outGroup = 0
			}
			all = append(all, p)
		}
		add("between pods of this node", pod, other, local, neighbour)
		add("from pods to other nodes' pods", pod, h.TUN, local, remote)
		add("from other nodes' pods to pods", h.TUN, pod, remote, local)
		add("from pods to the outside", pod, outside, local, anywhere)
		base.state = "established"
		add("from the outside back to pods", outside, pod, anywhere, local)
		base.state = "new"
		base.hook, base.outGroup = "input", 0
		add("from pods to this node", pod, "", local, anywhere)
	}
	for _, f := range family.All {
		anywhere := f.Unspecified()
		all = append(all, probe{
			what: toWeftsPort, hook: "input", in: outside, source: anywhere, dest: anywhere, protocol: "udp", port: h.Port, state: "untracked",
		})
	}
	return all
}

// culprit is a chain that drops, and why.
type culprit struct {
	chain  *chain
	reason string
}

// inspect follows each probe through each base chain of its hook.
func (h Host) inspect(all tables) (found []warning.Warning) {
	var order []culprit
	drops := map[culprit][]string{}
	for _, c := range all {
		for _, p := range h.probes() {
			if c.hook != p.hook || c.family == "ip" && p.v6() || c.family == "ip6" && !p.v6() {
				continue
			}
			o := c.judge(p)
			if o.verdict != drop {
				continue
			}
			k := culprit{c, o.reason}
			if drops[k] == nil {
				order = append(order, k)
			}
			if !slices.Contains(drops[k], p.what) {
				drops[k] = append(drops[k], p.what)
			}
		}
	}
	for _, k := range order {
		code := CodeForward
		if k.chain.hook == "input" {
			code = CodeInput
		}
		found = append(found, warning.Warning{Code: code, Text: fmt.Sprintf("%s drops packets %s: %s; %s",
			k.chain.subject(), strings.Join(drops[k], ", "), k.reason, h.remedy(k.chain, drops[k]))})
	}
	return found
}

// subject names a chain as its owner does.
func (c *chain) subject() string {
	switch {
	case c.iptables:
		name := "iptables"
		if c.family == "ip6" {
			name = "ip6tables"
		}
		if c.legacy {
			name += "-legacy"
		}
		return name + " chain " + c.name
	case c.table == "firewalld":
		return "firewalld (chain " + c.family + " firewalld " + c.name + ")"
	}
	return fmt.Sprintf("nftables chain %s %s %s (hook %s)", c.family, c.table, c.name, c.hook)
}

// remedy says how the owner of a chain is made to accept.
func (h Host) remedy(c *chain, what []string) string {
	links := []string{PodLinks}
	if !strings.HasPrefix(h.TUN, PodLinks) {
		links = append(links, h.TUN)
	}
	port := slices.Contains(what, toWeftsPort)
	var commands []string
	add := func(format string, args ...any) { commands = append(commands, fmt.Sprintf(format, args...)) }
	has := func(name string) bool { return c.siblings[name] != nil }
	switch {
	case c.table == "firewalld":
		if port {
			add("firewall-cmd --permanent --add-port=%d/udp", h.Port)
		}
		if !port || len(what) > 1 { // as in deploy/firewalld
			add("firewall-cmd --permanent --new-zone=weft")
			add("firewall-cmd --permanent --zone=weft --set-target=ACCEPT")
			for _, cidr := range h.ClusterCIDRs {
				add("firewall-cmd --permanent --zone=weft --add-source=%s", cidr)
			}
			add("firewall-cmd --permanent --new-policy=weft-out")
			add("firewall-cmd --permanent --policy=weft-out --set-target=ACCEPT")
			add("firewall-cmd --permanent --policy=weft-out --add-ingress-zone=weft")
			add("firewall-cmd --permanent --policy=weft-out --add-egress-zone=ANY")
		}
		add("firewall-cmd --reload")
	case c.iptables && c.hook == "input":
		program := strings.TrimSuffix(c.subject(), " chain "+c.name)
		if has("ufw-user-input") {
			if port {
				add("ufw allow %d/udp", h.Port)
			}
			if !port || len(what) > 1 {
				for _, cidr := range h.ClusterCIDRs {
					add("ufw allow from %s", cidr)
				}
			}
			break
		}
		if port {
			add("%s -I INPUT -p udp --dport %d -j ACCEPT, without a connection state: weft's datagrams are untracked", program, h.Port)
		}
		if !port || len(what) > 1 {
			add("%s -I INPUT -i %s+ -j ACCEPT", program, PodLinks)
		}
	case c.iptables:
		program := strings.TrimSuffix(c.subject(), " chain "+c.name)
		if has("ufw-user-forward") {
			add("ufw default allow routed")
			add("or set host.acceptForward: true")
			break
		}
		chain := "FORWARD"
		if has(dockerUser) {
			chain = dockerUser
		}
		for _, link := range links {
			add("%s -I %s -i %s+ -j ACCEPT", program, chain, link)
			add("%s -I %s -o %s+ -j ACCEPT", program, chain, link)
		}
		add("or set host.acceptForward: true")
	case c.hook == "input":
		if port {
			add("nft insert rule %s %s %s udp dport %d accept, without a connection state: weft's datagrams are untracked", c.family, c.table, c.name, h.Port)
		}
		if !port || len(what) > 1 {
			add(`nft insert rule %s %s %s iifname "%s*" accept`, c.family, c.table, c.name, PodLinks)
		}
	default:
		for _, link := range links {
			add(`nft insert rule %s %s %s iifname "%s*" accept`, c.family, c.table, c.name, link)
			add(`nft insert rule %s %s %s oifname "%s*" accept`, c.family, c.table, c.name, link)
		}
		add(`or set host.acceptForward: true and host.acceptForwardChain: "%s %s %s"`, c.family, c.table, c.name)
	}
	return "run " + strings.Join(commands, "; ")
}

// dockerUser is the chain that Docker leaves to others, and goes through first.
const dockerUser = "DOCKER-USER"
