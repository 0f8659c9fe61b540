package hostnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/marks"
	"weft/internal/rtnetlink"
)

// rule is one of weft's rules (ip-rule(8)): packets from src are looked up in table.
type rule struct {
	src      netip.Prefix
	table    int
	priority int
	foreign  bool // as in route
}

// wantedRules returns the rules that must hold: pods look up the peers' node
// addresses in weft's table, before the main table would send them to the underlay.
//
// So a pod's way to a peer's node address is not the way by which that node's own
// packets come to a hostPort or NodePort of the pod: those come over the underlay. An
// uplink whose rp_filter is 1 (strict) drops them, counted as IPReversePathFilter in
// /proc/net/netstat. No rule can help, because the kernel looks up the way back as if
// the pod had sent the packet. Such an uplink needs 2 (loose), or 0.
func wantedRules(n Network) []rule {
	var rules []rule
	for _, p := range n.PodCIDRs {
		rules = append(rules, rule{src: p, table: marks.RouteTable, priority: marks.RulePriority})
	}
	return rules
}

// applyRules makes want the only rules with weft's protocol number.
func (k *kernel) applyRules(ctx context.Context, want []rule) error {
	var listed []netlink.Rule
	for _, family := range families {
		rules, err := rtnetlink.Dump(func() ([]netlink.Rule, error) { return k.RuleList(family) })
		if err != nil {
			return fmt.Errorf("list the routing rules: %w", err)
		}
		for _, r := range rules {
			if r.Protocol == marks.RouteProtocol {
				listed = append(listed, r)
			}
		}
	}
	have := make(map[rule]bool)
	for _, r := range listed {
		have[parseRule(r)] = true
	}
	wanted := make(map[rule]bool)
	var errs []error
	for _, r := range want {
		wanted[r] = true
		if have[r] || ctx.Err() != nil {
			continue
		}
		if err := k.RuleAdd(r.netlink()); err != nil {
			errs = append(errs, fmt.Errorf("add a routing rule for packets from %s: %w", r.src, err))
			continue
		}
		k.changes.added++
	}
	for _, r := range listed {
		if wanted[parseRule(r)] || ctx.Err() != nil {
			continue
		}
		if err := k.RuleDel(&r); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("remove the stale routing rule %v: %w", r, err))
			continue
		}
		k.changes.removed++
	}
	return errors.Join(append(errs, ctx.Err())...)
}

func parseRule(r netlink.Rule) rule {
	return rule{
		src:      rtnetlink.Prefix(r.Src),
		table:    r.Table,
		priority: r.Priority,
		foreign: r.Dst != nil || r.Mark != 0 || r.Mask != nil || r.IifName != "" || r.OifName != "" || r.Invert ||
			r.Goto >= 0 || r.IPProto != 0 || r.Dport != nil || r.Sport != nil || r.UIDRange != nil,
	}
}

func (r rule) netlink() *netlink.Rule {
	n := netlink.NewRule()
	n.Family = familyOf(r.src.Addr())
	n.Src = rtnetlink.IPNet(r.src)
	n.Table = r.table
	n.Priority = r.priority
	n.Protocol = marks.RouteProtocol
	return n
}
