package hostnet

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/family"
	"weft/internal/marks"
	"weft/internal/rtnetlink"
)

// KernelRoute is a route of the kernel, whichever program's.
type KernelRoute struct {
	Prefix netip.Prefix `json:"prefix"`

	// Type is as ip-route(8) has it: unicast, local, unreachable, …
	Type string `json:"type"`

	Device   string     `json:"device,omitempty"`
	Gateway  netip.Addr `json:"gateway,omitzero"`
	Source   netip.Addr `json:"source,omitzero"` // preferred, for what the node itself sends
	MTU      int        `json:"mtu,omitempty"`   // bytes; 0: the device's
	Table    int        `json:"table"`
	Metric   int        `json:"metric"`
	Protocol int        `json:"protocol"` // rtnetlink(7); weft's is 93, and that of routes to its pods 94
}

// Own says whether the route is weft's, or leads to one of weft's pods.
func (r KernelRoute) Own() bool {
	return r.Protocol == marks.RouteProtocol || r.Protocol == marks.PodRouteProtocol
}

// String describes the route as ip-route(8) does.
func (r KernelRoute) String() string {
	text := r.Type
	if r.Type == "unicast" || r.Type == "local" {
		text = ""
	}
	add := func(key, value string) {
		if text != "" {
			text += " "
		}
		text += key + " " + value
	}
	if text != "" {
		text += " " + r.Prefix.String()
	} else {
		text = r.Prefix.String()
	}
	if r.Gateway.IsValid() {
		add("via", r.Gateway.String())
	}
	if r.Device != "" && r.Type == "unicast" {
		add("dev", r.Device)
	}
	add("table", TableName(r.Table))
	if r.MTU > 0 {
		add("mtu", strconv.Itoa(r.MTU))
	}
	if r.Source.IsValid() {
		add("src", r.Source.String())
	}
	return text
}

// TableName is what ip-route(8) calls a table.
func TableName(table int) string {
	switch table {
	case unix.RT_TABLE_MAIN:
		return "main"
	case unix.RT_TABLE_LOCAL:
		return "local"
	case unix.RT_TABLE_DEFAULT:
		return "default"
	}
	return strconv.Itoa(table)
}

var routeTypes = map[int]string{
	unix.RTN_UNICAST: "unicast", unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast", unix.RTN_ANYCAST: "anycast",
	unix.RTN_MULTICAST: "multicast", unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable",
	unix.RTN_PROHIBIT: "prohibit", unix.RTN_THROW: "throw",
}

// links remembers the names of devices.
type links map[int]string

func (l links) name(index int) string {
	if index == 0 {
		return ""
	}
	if name, ok := l[index]; ok {
		return name
	}
	name := fmt.Sprintf("#%d", index) // it is gone by now
	if link, err := netlink.LinkByIndex(index); err == nil {
		name = link.Attrs().Name
	}
	l[index] = name
	return name
}

func (l links) describe(r netlink.Route) KernelRoute {
	k := KernelRoute{Prefix: rtnetlink.Prefix(r.Dst), Type: routeTypes[r.Type], Device: l.name(r.LinkIndex), Gateway: rtnetlink.Addr(r.Gw),
		Source: rtnetlink.Addr(r.Src), MTU: r.MTU, Table: r.Table, Metric: r.Priority, Protocol: int(r.Protocol)}
	if k.Type == "" {
		k.Type = strconv.Itoa(r.Type)
	}
	if len(r.MultiPath) > 0 {
		k.Device, k.Gateway = l.name(r.MultiPath[0].LinkIndex), rtnetlink.Addr(r.MultiPath[0].Gw)
	}
	return k
}

// Routes returns the routes that decide where packets go to pods and to peers' node addresses, in
// the network namespace of the calling thread: those of the main table within the cluster CIDRs,
// whichever program's, and those of weft's own table.
func Routes(clusterCIDRs []netip.Prefix) ([]KernelRoute, error) {
	var all []KernelRoute
	names := links{}
	within := func(p netip.Prefix) bool {
		for _, c := range clusterCIDRs {
			if p.IsValid() && p.Bits() >= c.Bits() && c.Overlaps(p) {
				return true
			}
		}
		return false
	}
	for _, f := range family.All {
		for _, table := range []int{unix.RT_TABLE_MAIN, marks.RouteTable} {
			routes, err := rtnetlink.Dump(func() ([]netlink.Route, error) {
				return netlink.RouteListFiltered(f.AF(), &netlink.Route{Table: table}, netlink.RT_FILTER_TABLE)
			})
			if err != nil {
				return nil, fmt.Errorf("list the routes of table %s: %w", TableName(table), err)
			}
			for _, r := range routes {
				if table == marks.RouteTable || within(rtnetlink.Prefix(r.Dst)) {
					all = append(all, names.describe(r))
				}
			}
		}
	}
	return all, nil
}

// Lookup is a question for the kernel: which way does a packet take?
type Lookup struct {
	Source, Destination netip.Addr // Source is invalid if the node itself sends, and has none yet
	In                  string     // the interface that the packet comes from; "" if the node itself sends
	Mark                uint32
}

// Way is the kernel's answer.
type Way struct {
	KernelRoute

	// Rule is the routing rule (ip-rule(8)) that leads to the route's table, as far as that is seen
	// from outside.
	Rule string

	// DeviceMTU is the device's, in bytes. Kind is the device's, as "veth", and Group its group.
	DeviceMTU int
	Kind      string
	Group     int
}

// Unroutable is an answer too: the kernel drops such packets, and why.
type Unroutable struct {
	Why string
	error
}

func (u Unroutable) Error() string { return u.Why }
func (u Unroutable) Unwrap() error { return u.error }

// Ask asks the kernel, in the network namespace of the calling thread. An error may be Unroutable.
func (l Lookup) Ask() (Way, error) {
	options := &netlink.RouteGetOptions{Iif: l.In, Mark: l.Mark}
	if l.Source.IsValid() {
		options.SrcAddr = l.Source.AsSlice()
	}
	routes, err := netlink.RouteGetWithOptions(l.Destination.AsSlice(), options)
	if err != nil {
		return Way{}, l.explain(err)
	}
	if len(routes) == 0 {
		return Way{}, Unroutable{"the kernel has no route", nil}
	}
	names := links{}
	w := Way{KernelRoute: names.describe(routes[0])}
	w.Prefix = netip.PrefixFrom(l.Destination, l.Destination.BitLen())
	options.FIBMatch = true // the route itself, not the way of this packet
	if matched, err := netlink.RouteGetWithOptions(l.Destination.AsSlice(), options); err == nil && len(matched) > 0 {
		w.Prefix, w.Protocol, w.Metric = rtnetlink.Prefix(matched[0].Dst), int(matched[0].Protocol), matched[0].Priority
	}
	if link, err := netlink.LinkByIndex(routes[0].LinkIndex); err == nil {
		w.DeviceMTU, w.Kind, w.Group = link.Attrs().MTU, link.Type(), int(link.Attrs().Group)
	}
	w.Rule = l.rule(w.Table)
	switch w.Type {
	case "unreachable", "blackhole", "prohibit", "throw":
		return w, Unroutable{"the kernel answers that the destination is " + w.Type, nil}
	}
	return w, nil
}

// explain says what an error of the kernel means for a packet.
func (l Lookup) explain(err error) error {
	switch {
	case errors.Is(err, unix.EHOSTUNREACH):
		return Unroutable{"the kernel answers: destination unreachable", err}
	case errors.Is(err, unix.ENETUNREACH):
		return Unroutable{"the kernel has no route", err}
	case errors.Is(err, unix.EACCES):
		return Unroutable{"a route of the kernel prohibits it", err}
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL) && l.In != "":
		return Unroutable{fmt.Sprintf("the kernel refuses packets from %s that arrive by %s (rp_filter, or no address that can be there)", l.Source, l.In), err}
	}
	return fmt.Errorf("ask the kernel for the route to %s: %w", l.Destination, err)
}

// rule returns the first rule that the packet meets and that leads to a table.
func (l Lookup) rule(table int) string {
	rules, err := rtnetlink.Dump(func() ([]netlink.Rule, error) { return netlink.RuleList(family.Of(l.Destination).AF()) })
	if err != nil {
		return ""
	}
	for _, r := range rules {
		if r.Table != table || r.Invert || r.Src != nil && !rtnetlink.Prefix(r.Src).Contains(l.Source) ||
			r.Dst != nil && !rtnetlink.Prefix(r.Dst).Contains(l.Destination) || r.IifName != "" && r.IifName != l.In || r.OifName != "" {
			continue
		}
		if mask := r.Mask; r.Mark != 0 || mask != nil && *mask != 0 {
			bits := ^uint32(0)
			if mask != nil {
				bits = *mask
			}
			if l.Mark&bits != r.Mark {
				continue
			}
		}
		return strconv.Itoa(max(0, r.Priority))
	}
	return ""
}

// Interface returns the interface by which packets to an address leave, "" if there is none.
func Interface(to netip.Addr) string {
	w, err := Lookup{Destination: to}.Ask()
	if err != nil {
		return ""
	}
	return w.Device
}
