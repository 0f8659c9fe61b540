package daemon

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"weft/fib"
	"weft/internal/family"
	"weft/internal/hostnet"
	"weft/internal/marks"
	"weft/internal/status"
	"weft/internal/strict"
)

// routes compares the forwarding table with the kernel's routes.
func (d *daemon) routes(overlapping netip.Prefix) ([]status.RouteEntry, error) {
	path := d.path.Load()
	if path == nil {
		return nil, fmt.Errorf("weftd has no routes yet: %w", d.Ready())
	}
	kernel, err := hostnet.Routes(d.config.ClusterCIDRs)
	if err != nil {
		return nil, err
	}
	all := compareRoutes(path.router.Table(), kernel, d.config.TUN.Name, d.config.ClusterCIDRs)
	if overlapping.IsValid() {
		all = slices.DeleteFunc(all, func(e status.RouteEntry) bool { return !e.Prefix.Overlaps(overlapping) })
	}
	return all, nil
}

// compareRoutes returns an entry for each prefix of the table, and for each route of another
// program that takes packets from it.
func compareRoutes(table *fib.Table, kernel []hostnet.KernelRoute, tun string, clusterCIDRs []netip.Prefix) []status.RouteEntry {
	byPrefix := map[netip.Prefix][]hostnet.KernelRoute{}
	for _, r := range kernel {
		byPrefix[r.Prefix] = append(byPrefix[r.Prefix], r)
	}
	for _, routes := range byPrefix {
		slices.SortStableFunc(routes, func(a, b hostnet.KernelRoute) int { return cmp.Compare(a.Metric, b.Metric) })
	}
	all := []status.RouteEntry{}
	listed := map[netip.Prefix]bool{}
	for prefix, node := range table.All() {
		e := status.RouteEntry{Prefix: prefix, Node: node.Name, Self: node == table.Self(), Kernel: append([]hostnet.KernelRoute{}, byPrefix[prefix]...)}
		e.Problem = routeProblem(e, tun, clusterCIDRs)
		all = append(all, e)
		listed[prefix] = true
	}
	for _, r := range kernel {
		if listed[r.Prefix] || r.Own() && !slices.Contains(clusterCIDRs, r.Prefix) {
			continue // the routes to this node's pods
		}
		listed[r.Prefix] = true
		e := status.RouteEntry{Prefix: r.Prefix, Kernel: byPrefix[r.Prefix]}
		if owner, ok := table.Lookup(r.Prefix.Addr()); ok {
			e.Node, e.Self = owner.Name, owner == table.Self()
		}
		if !r.Own() {
			e.Problem = fmt.Sprintf("another program's route takes packets to %s from the overlay: %s; remove it, or change the CIDR", r.Prefix, r)
		}
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b status.RouteEntry) int {
		return cmp.Or(-cmp.Compare(min(1, len(a.Problem)), min(1, len(b.Problem))), a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	return all
}

// routeProblem is what is wrong with the kernel's routes to a prefix of the table.
func routeProblem(e status.RouteEntry, tun string, clusterCIDRs []netip.Prefix) string {
	inCluster := strict.Within(e.Prefix, clusterCIDRs)
	if !inCluster {
		if e.Self || !e.Prefix.Addr().IsGlobalUnicast() || len(family.Of(e.Prefix.Addr()).Prefixes(clusterCIDRs)) == 0 {
			return "" // no pod can reach it, or the way there is not the overlay
		}
	}
	if len(e.Kernel) == 0 {
		return "the kernel has no route; `weft status` says why"
	}
	first := e.Kernel[0]
	switch {
	case !first.Own():
		return fmt.Sprintf("another program's route is used: %s; remove it, or change the CIDR", first)
	case !e.Self && first.Device != tun:
		return fmt.Sprintf("the route does not lead into %s: %s; `weft status` says why", tun, first)
	case !inCluster && first.Table != marks.RouteTable:
		return fmt.Sprintf("the route is in the wrong table: %s", first)
	}
	return ""
}
