package hostnet

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/marks"
	"weft/internal/rtnetlink"
)

// applyRoutes makes want the only routes with weft's protocol number, in any table.
// No destination is without a route on the way from old to new.
func (k *kernel) applyRoutes(ctx context.Context, want []route) error {
	wanted := make(map[route]bool, len(want))
	for _, r := range want {
		wanted[r] = true
	}
	have, unwanted, err := k.listRoutes(wanted)
	if err != nil {
		return fmt.Errorf("list weft's routes: %w", err)
	}
	d := diffRoutes(have, want)
	var remove []*netlink.Route
	for _, r := range d.stale {
		remove = append(remove, unwanted[r]...)
		delete(unwanted, r) // all that parse alike
	}
	return k.changeTo(ctx, d, remove)
}

// changeRoutes is applyRoutes when weft itself has made have hold.
func (k *kernel) changeRoutes(ctx context.Context, have, want []route) error {
	d := diffRoutes(have, want)
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

// listRoutes returns the routes with weft's protocol number in all tables, and those that
// are not wanted as they were listed: they may have what weft never sets.
func (k *kernel) listRoutes(wanted map[route]bool) (have []route, unwanted map[route][]*netlink.Route, err error) {
	unwanted = make(map[route][]*netlink.Route)
	for _, family := range families {
		filter := &netlink.Route{Protocol: marks.RouteProtocol, Table: unix.RT_TABLE_UNSPEC}
		type listed struct {
			route
			original *netlink.Route // nil if it is wanted
		}
		// One at a time: all at once, as netlink has them, would be the most that weftd ever
		// keeps in memory.
		routes, err := rtnetlink.Dump(func() (all []listed, err error) {
			err = k.strict.RouteListFilteredIter(family, filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
				l := listed{route: parseRoute(r)}
				if !wanted[l.route] {
					l.original = &r
				}
				all = append(all, l)
				return true
			})
			return all, err
		})
		if err != nil {
			return nil, nil, err
		}
		for _, l := range routes {
			have = append(have, l.route)
			if l.original != nil {
				unwanted[l.route] = append(unwanted[l.route], l.original)
			}
		}
	}
	return have, unwanted, nil
}

// addRoutes adds routes, and returns those whose key somebody else's route holds.
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
// kernel replaces the first route with the key, whosever it is, so a key that
// somebody else holds as well is a conflict.
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
	for _, family := range families {
		for _, table := range []int{unix.RT_TABLE_MAIN, marks.RouteTable} {
			routes, err := rtnetlink.Dump(func() ([]netlink.Route, error) {
				return k.RouteListFiltered(family, &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
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
			errs = append(errs, fmt.Errorf("the route to %s met another that has gone since", c.dst))
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
