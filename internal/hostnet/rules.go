package hostnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/family"
	"weft/internal/marks"
	"weft/internal/rtnetlink"
)

// rule is one of weft's rules (ip-rule(8)): packets from src, to dst and with mark are
// looked up in table.
type rule struct {
	family     int          // address_families(7)
	src, dst   netip.Prefix // invalid stands for any
	mark, mask uint32       // mask 0 stands for any
	table      int
	priority   int
	foreign    bool // as in route
}

// wantedRules returns the rules that must hold, in the order in which the kernel asks them.
//
// The way back of what came out of the overlay is the overlay. The guard marks these
// packets, so that a reverse path check which looks at marks finds that a peer's node
// address is behind the TUN device.
//
// Pods look up the peers' node addresses in weft's table, before the main table would send
// them to the underlay. So a pod's way to a peer's node address is not the way by which
// that node's own packets come to a hostPort or NodePort of the pod: those come over the
// underlay. An uplink whose rp_filter is 1 (strict) drops them, counted as
// IPReversePathFilter in /proc/net/netstat. No rule can help, because the kernel looks up
// the way back as if the pod had sent the packet. Such an uplink needs 2 (loose), or 0.
//
// The way to pods stands in the main table, whatever another program's rules say of the
// source: a cloud's for each of the node's addresses, or a VPN's for all. This rule comes
// first, because it ends the search for most of pods' packets; RouteTable has no routes to
// pods.
func wantedRules(n Network) []rule {
	var rules []rule
	for _, p := range n.ClusterCIDRs {
		rules = append(rules, rule{family: family.Of(p.Addr()).AF(), dst: p, table: unix.RT_TABLE_MAIN, priority: marks.RulePriority})
	}
	for _, f := range family.All {
		if n.uses(f) {
			from := n.MarkMask.FromOverlay()
			rules = append(rules, rule{family: f.AF(), mark: from, mask: uint32(n.MarkMask), table: marks.RouteTable, priority: marks.RulePriority + 1})
		}
	}
	for _, p := range n.PodCIDRs {
		rules = append(rules, rule{family: family.Of(p.Addr()).AF(), src: p, table: marks.RouteTable, priority: marks.LastRulePriority})
	}
	return rules
}

// applyRules makes want the only rules with weft's protocol number.
func (k *kernel) applyRules(ctx context.Context, want []rule) error {
	var listed []netlink.Rule
	for _, f := range family.All {
		rules, err := rtnetlink.Dump(func() ([]netlink.Rule, error) { return k.RuleList(f.AF()) })
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
			errs = append(errs, fmt.Errorf("add the routing rule %v: %w", r.netlink(), err))
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
	parsed := rule{
		family:   r.Family,
		mark:     r.Mark,
		table:    r.Table,
		priority: r.Priority,
		foreign: r.IifName != "" || r.OifName != "" || r.Invert || r.Tos != 0 || r.SuppressPrefixlen >= 0 || r.SuppressIfgroup >= 0 ||
			r.Goto >= 0 || r.IPProto != 0 || r.Dport != nil || r.Sport != nil || r.UIDRange != nil,
	}
	if r.Src != nil {
		parsed.src = rtnetlink.Prefix(r.Src)
	}
	if r.Dst != nil {
		parsed.dst = rtnetlink.Prefix(r.Dst)
	}
	if r.Mask != nil {
		parsed.mask = *r.Mask
	}
	return parsed
}

func (r rule) netlink() *netlink.Rule {
	n := netlink.NewRule()
	n.Family = r.family
	if r.src.IsValid() {
		n.Src = rtnetlink.IPNet(r.src)
	}
	if r.dst.IsValid() {
		n.Dst = rtnetlink.IPNet(r.dst)
	}
	if r.mask != 0 {
		n.Mark, n.Mask = r.mark, &r.mask
	}
	n.Table = r.table
	n.Priority = r.priority
	n.Protocol = marks.RouteProtocol
	return n
}
