package hostnet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/family"
	"weft/internal/marks"
	"weft/internal/rtnetlink"
)

// applyRoutes makes want the only routes with weft's protocol number, in any table.
// No destination is without a route on the way from old to new.
func (k *kernel) applyRoutes(ctx context.Context, want []route) error {
	missing, unwanted, err := k.compare(want)
	if err != nil {
		return fmt.Errorf("list weft's routes: %w", err)
	}
	var have []route
	originals := make(map[route][]*netlink.Route)
	for _, original := range unwanted {
		r := parseRoute(*original)
		have = append(have, r)
		originals[r] = append(originals[r], original)
	}
	d := diffRoutes(have, missing)
	var remove []*netlink.Route
	for _, r := range d.stale {
		remove = append(remove, originals[r]...)
		delete(originals, r) // all that parse alike
	}
	return k.changeTo(ctx, d, remove)
}

// changeRoutes is applyRoutes when weft itself has made before hold.
func (k *kernel) changeRoutes(ctx context.Context, before, now *held) error {
	have, want := before.Network, now.Network
	if before.tun == now.tun && slices.Equal(have.Addresses, want.Addresses) && maps.Equal(have.MTUs, want.MTUs) {
		// The others' routes are as they were.
		have.PeerCIDRs, want.PeerCIDRs = apart(have.PeerCIDRs, want.PeerCIDRs, netip.Prefix.Compare)
		have.PeerAddresses, want.PeerAddresses = apart(have.PeerAddresses, want.PeerAddresses, netip.Addr.Compare)
	}
	d := diffRoutes(wantedRoutes(have, before.tun), wantedRoutes(want, now.tun))
	var remove []*netlink.Route
	for _, r := range d.stale {
		remove = append(remove, r.netlink())
	}
	return k.changeTo(ctx, d, remove)
}

func (k *kernel) changeTo(ctx context.Context, d difference, stale []*netlink.Route) error {
	conflicts, err := k.addRoutes(ctx, d.missing)
	return errors.Join(err, k.replaceRoutes(ctx, d.changed), k.explain(conflicts), k.removeRoutes(ctx, stale), ctx.Err())
}

// compare returns those of the wanted routes that there are not, in the place of want, and
// those with weft's protocol number, in all tables, that are not wanted. These are as they
// were listed: they may have what weft never sets.
func (k *kernel) compare(want []route) (missing []route, unwanted []*netlink.Route, err error) {
	slices.SortFunc(want, func(a, b route) int { return a.compare(b.routeKey) })
	found := make([]bool, len(want))
	for _, f := range family.All {
		filter := &netlink.Route{Protocol: marks.RouteProtocol, Table: unix.RT_TABLE_UNSPEC}
		others, err := rtnetlink.Dump(func() (others []*netlink.Route, err error) {
			for i, r := range want { // it may be asked again
				found[i] = found[i] && family.Of(r.dst.Addr()) != f
			}
			// One at a time: all at once, as netlink has them, would be the most that weftd
			// ever keeps in memory.
			err = k.strict.RouteListFilteredIter(f.AF(), filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
				parsed := parseRoute(r)
				if i, ok := slices.BinarySearchFunc(want, parsed.routeKey, route.compare); ok && want[i] == parsed {
					found[i] = true
				} else {
					others = append(others, &r)
				}
				return true
			})
			return others, err
		})
		if err != nil {
			return nil, nil, err
		}
		unwanted = append(unwanted, others...)
	}
	missing = want[:0]
	for i, r := range want {
		if !found[i] {
			missing = append(missing, r)
		}
	}
	return missing, unwanted, nil
}

// addRoutes adds routes, and returns those whose key another program's route holds.
func (k *kernel) addRoutes(ctx context.Context, routes []route) (conflicts []route, err error) {
	var failed []error
	for _, r := range routes {
		if ctx.Err() != nil {
			break
		}
		switch err := k.RouteAdd(r.netlink()); {
		case errors.Is(err, unix.EEXIST):
			conflicts = append(conflicts, r)
		case err != nil:
			failed = append(failed, fmt.Errorf("add a route to %s: %w", r.dst, err))
		default:
			k.changes.added++
		}
	}
	return conflicts, firstOf(failed)
}

func (k *kernel) removeRoutes(ctx context.Context, routes []*netlink.Route) error {
	var failed []error
	for _, r := range routes {
		if ctx.Err() != nil {
			break
		}
		// The kernel compares the protocol number too, and so deletes no one else's.
		if err := k.RouteDel(r); err != nil && !errors.Is(err, unix.ESRCH) {
			failed = append(failed, fmt.Errorf("remove the stale route to %s: %w", r.Dst, err))
			continue
		}
		k.changes.removed++
	}
	return firstOf(failed)
}

// replaceRoutes puts routes in the place of weft's own that hold their keys. The
// kernel replaces the first route with the key, whichever program's it is, so a key that
// another program's route holds as well is a conflict.
func (k *kernel) replaceRoutes(ctx context.Context, routes []route) error {
	if len(routes) == 0 {
		return nil
	}
	others, err := k.othersRoutes()
	if err != nil {
		return err
	}
	var conflicts []route
	var failed []error
	for _, r := range routes {
		if ctx.Err() != nil {
			break
		}
		if _, taken := others[r.routeKey]; taken {
			conflicts = append(conflicts, r)
			continue
		}
		if err := k.RouteReplace(r.netlink()); err != nil {
			failed = append(failed, fmt.Errorf("replace the route to %s: %w", r.dst, err))
			continue
		}
		k.changes.replaced++
	}
	return errors.Join(firstOf(failed), k.explain(conflicts))
}

// othersRoutes returns the routes in weft's tables that are not weft's.
func (k *kernel) othersRoutes() (map[routeKey]netlink.Route, error) {
	others := make(map[routeKey]netlink.Route)
	for _, f := range family.All {
		for _, table := range []int{unix.RT_TABLE_MAIN, marks.RouteTable} {
			routes, err := rtnetlink.Dump(func() ([]netlink.Route, error) {
				return k.RouteListFiltered(f.AF(), &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
			})
			if err != nil {
				return nil, fmt.Errorf("list the routes of table %d: %w", table, err)
			}
			for _, r := range routes {
				if r.Protocol != marks.RouteProtocol {
					others[parseRoute(r).routeKey] = r
				}
			}
		}
	}
	return others, nil
}

// explain returns an error that names the routes in the way of conflicts.
func (k *kernel) explain(conflicts []route) error {
	if len(conflicts) == 0 {
		return nil
	}
	others, err := k.othersRoutes()
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range conflicts {
		other, ok := others[c.routeKey]
		if !ok {
			errs = append(errs, fmt.Errorf("the route to %s conflicted with one that is gone by now", c.dst))
			continue
		}
		errs = append(errs, fmt.Errorf("the route to %s (table %d) is taken by another program's: %s; remove it or change the CIDR",
			c.dst, c.table, k.describe(other)))
	}
	return firstOf(errs)
}

// describe returns r in the words of ip-route(8).
func (k *kernel) describe(r netlink.Route) string {
	s := r.Dst.String()
	if r.Gw != nil {
		s += " via " + r.Gw.String()
	}
	if link, err := k.LinkByIndex(r.LinkIndex); err == nil {
		s += " dev " + link.Attrs().Name
	}
	return fmt.Sprintf("%s proto %s metric %d", s, r.Protocol, r.Priority)
}
