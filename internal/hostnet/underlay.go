package hostnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/family"
	"weft/internal/rtnetlink"
)

// UnderlayMTU returns the MTU in bytes, and the name, of the interface through
// which this node's datagrams leave when its endpoint has the address addr.
//
// That is the interface that has addr. Where none has it, because the node sits
// behind a NAT or addr is unspecified, and where only the loopback device has it,
// as a routed host's own address, it is the one with the smallest MTU among those
// that are up and carry a default route of addr's family.
func UnderlayMTU(addr netip.Addr) (mtu int, ifname string, err error) {
	k, err := openKernel()
	if err != nil {
		return 0, "", err
	}
	defer k.close()
	addr = addr.Unmap()
	holder, err := k.holderOf(addr)
	if err != nil {
		return 0, "", err
	}
	if holder != nil && holder.Flags&net.FlagLoopback == 0 {
		return holder.MTU, holder.Name, nil
	}
	uplink, err := k.smallestUplink(family.Of(addr))
	if err != nil {
		return 0, "", err
	}
	switch {
	case uplink != nil:
		return uplink.MTU, uplink.Name, nil
	case holder != nil:
		return holder.MTU, holder.Name, nil
	}
	return 0, "", fmt.Errorf("no interface has the address %s or a default route", addr)
}

// holderOf returns the interface that has addr, or nil.
func (k *kernel) holderOf(addr netip.Addr) (*netlink.LinkAttrs, error) {
	addrs, err := rtnetlink.Dump(func() ([]netlink.Addr, error) { return k.AddrList(nil, family.Of(addr).AF()) })
	if err != nil {
		return nil, fmt.Errorf("list this node's addresses: %w", err)
	}
	for _, a := range addrs {
		if rtnetlink.Prefix(a.IPNet).Addr() != addr {
			continue
		}
		link, err := k.LinkByIndex(a.LinkIndex)
		if err != nil {
			return nil, fmt.Errorf("find the interface of %s: %w", addr, err)
		}
		return link.Attrs(), nil
	}
	return nil, nil
}

// smallestUplink returns the interface with the smallest MTU among those that are
// up and carry a default route of the family, or nil.
func (k *kernel) smallestUplink(f family.Family) (*netlink.LinkAttrs, error) {
	routes, err := rtnetlink.Dump(func() ([]netlink.Route, error) {
		filter := &netlink.Route{Table: unix.RT_TABLE_MAIN}
		return k.RouteListFiltered(f.AF(), filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
	})
	if err != nil {
		return nil, fmt.Errorf("list the default routes: %w", err)
	}
	var smallest *netlink.LinkAttrs
	for _, r := range routes {
		var indexes []int
		if r.LinkIndex != 0 {
			indexes = append(indexes, r.LinkIndex)
		}
		for _, hop := range r.MultiPath {
			indexes = append(indexes, hop.LinkIndex)
		}
		for _, index := range indexes {
			link, err := k.LinkByIndex(index)
			if errors.As(err, new(netlink.LinkNotFoundError)) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("find interface %d: %w", index, err)
			}
			attrs := link.Attrs()
			if attrs.Flags&net.FlagUp == 0 || attrs.Flags&net.FlagLoopback != 0 {
				continue
			}
			if smallest == nil || attrs.MTU < smallest.MTU {
				smallest = attrs
			}
		}
	}
	return smallest, nil
}
