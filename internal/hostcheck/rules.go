package hostcheck

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/family"
	"weft/internal/marks"
	"weft/internal/rtnetlink"
	"weft/internal/warning"
)

// routingRule is a rule (ip-rule(8)) in front of weft's, and the routes of its table.
type routingRule struct {
	priority     int
	last         int // the priority of weft's last rule
	table        int
	source, dest netip.Prefix // invalid: any
	in           string
	marked       bool // only for packets with a mark
	routes       []netip.Prefix
}

// readRules returns the foreign rules that the kernel asks before weft's last one.
func readRules() (found []routingRule, err error) {
	for _, f := range family.All {
		rules, err := rtnetlink.Dump(func() ([]netlink.Rule, error) { return netlink.RuleList(f.AF()) })
		if err != nil {
			return nil, fmt.Errorf("list the routing rules: %w", err)
		}
		last := marks.LastRulePriority // also while weft's rules are not there yet
		for _, r := range rules {
			if r.Protocol == marks.RouteProtocol {
				last = max(last, r.Priority)
			}
		}
		for _, r := range rules {
			if r.Table == unix.RT_TABLE_MAIN && forAll(r) {
				break // the main table has a route to all of the cluster CIDRs, weft's
			}
			if r.Priority >= last || r.Protocol == marks.RouteProtocol || r.Table == unix.RT_TABLE_LOCAL || r.Table == unix.RT_TABLE_MAIN || r.Table == 0 || r.Invert {
				continue
			}
			routes, err := rtnetlink.Dump(func() ([]netlink.Route, error) {
				return netlink.RouteListFiltered(f.AF(), &netlink.Route{Table: r.Table}, netlink.RT_FILTER_TABLE)
			})
			if err != nil {
				return nil, fmt.Errorf("list the routes of table %d: %w", r.Table, err)
			}
			rule := routingRule{priority: r.Priority, last: last, table: r.Table, in: r.IifName, marked: r.Mark != 0}
			if r.Src != nil {
				rule.source = rtnetlink.Prefix(r.Src)
			}
			if r.Dst != nil {
				rule.dest = rtnetlink.Prefix(r.Dst)
			}
			for _, route := range routes {
				if route.Type == unix.RTN_THROW {
					continue
				}
				to := netip.PrefixFrom(f.Unspecified(), 0)
				if route.Dst != nil {
					to = rtnetlink.Prefix(route.Dst)
				}
				if to.Bits() > r.SuppressPrefixlen {
					rule.routes = append(rule.routes, to)
				}
			}
			found = append(found, rule)
		}
	}
	return found, nil
}

// forAll says whether a rule is for all packets, and suppresses at most the default route of its table.
func forAll(r netlink.Rule) bool {
	return !r.Invert && r.Src == nil && r.Dst == nil && r.IifName == "" && r.OifName == "" && r.Mark == 0 && (r.Mask == nil || *r.Mask == 0) && r.Tos == 0 &&
		r.IPProto == 0 && r.Sport == nil && r.Dport == nil && r.UIDRange == nil && r.SuppressPrefixlen <= 0
}

// inspectRules names the rules that send packets to pods elsewhere.
func (h Host) inspectRules(rules []routingRule) (found []warning.Warning) {
	for _, r := range rules {
		if r.marked || r.in != "" && !strings.HasPrefix(r.in, PodLinks) && r.in != h.TUN {
			continue
		}
		for _, cidr := range h.ClusterCIDRs {
			if r.source.IsValid() && !r.source.Overlaps(cidr) || r.dest.IsValid() && !r.dest.Overlaps(cidr) || !r.takes(cidr) {
				continue
			}
			found = append(found, warning.Warning{Code: CodeRule, Text: fmt.Sprintf(
				"the routing rule of priority %d sends packets to %s through table %d before weft's rules are asked; give it a priority above %d, or add to its table: throw %s",
				r.priority, cidr, r.table, r.last, cidr)})
			break
		}
	}
	return found
}

// takes says whether the rule's table has a route for some of a prefix.
func (r routingRule) takes(cidr netip.Prefix) bool {
	for _, route := range r.routes {
		if route.Overlaps(cidr) {
			return true
		}
	}
	return false
}
