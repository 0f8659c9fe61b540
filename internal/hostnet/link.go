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

// txQueueLen is how many packets, or super-packets, wait in the TUN device for
// each lane. It must bridge the few milliseconds for which a lane isn't scheduled,
// about 1,000 MTU-sized packets at 3 Gbit/s. More would only add delay that TCP
// can't see, and up to 64 KiB of memory for each.
const txQueueLen = 1000

// setUpTUN makes the TUN device as n wants it. It only adds addresses; see
// removeStaleAddresses.
func (k *kernel) setUpTUN(tun netlink.Link, n Network) error {
	if n.uses(family.IPv6) && n.MTU < family.LeastMTU6 {
		return fmt.Errorf("MTU %d of %s is too small for IPv6, which needs %d (RFC 8200 section 5); raise the underlay's MTU, or remove IPv6 from clusterCIDRs", n.MTU, n.TUN, family.LeastMTU6)
	}
	var errs []error
	set := func(what string, differs bool, change func() error) {
		if !differs {
			return
		}
		if err := change(); err != nil {
			errs = append(errs, fmt.Errorf("%s of %s: %w", what, n.TUN, err))
			return
		}
		k.changes.replaced++
	}
	attrs := tun.Attrs()
	set("set the MTU", attrs.MTU != n.MTU, func() error { return k.LinkSetMTU(tun, n.MTU) })
	set("limit the size of super-packets", n.GSOMaxSize != 0 && attrs.GSOMaxSize != uint32(n.GSOMaxSize),
		func() error { return k.LinkSetGSOMaxSize(tun, n.GSOMaxSize) })
	set("limit the segments of super-packets", n.GSOMaxSegs != 0 && attrs.GSOMaxSegs != uint32(n.GSOMaxSegs),
		func() error { return k.LinkSetGSOMaxSegs(tun, n.GSOMaxSegs) })
	set("set the queue length", attrs.TxQLen != txQueueLen, func() error { return k.LinkSetTxQLen(tun, txQueueLen) })
	// The overlay has no multicast, so the kernel must not announce its groups
	// (MLD, IGMP) into it.
	set("clear the multicast flag", attrs.RawFlags&unix.IFF_MULTICAST != 0, func() error { return k.LinkSetMulticastOff(tun) })
	// Before the device is up, so that no link-local address is ever made.
	errs = append(errs, k.setTUNSysctls(n))
	set("set the state", attrs.Flags&net.FlagUp == 0, func() error { return k.LinkSetUp(tun) })
	return errors.Join(append(errs, k.addAddresses(tun, n.Addresses))...)
}

// addAddresses adds those of want that tun lacks.
func (k *kernel) addAddresses(tun netlink.Link, want []netip.Addr) error {
	have, err := k.addressesOf(tun)
	if err != nil {
		return err
	}
	for _, a := range want {
		host := netip.PrefixFrom(a, a.BitLen())
		if _, ok := have[host]; ok {
			continue
		}
		addr := &netlink.Addr{IPNet: rtnetlink.IPNet(host)}
		if a.Is6() {
			// No other host can have the address: the CIDR is this node's alone. And
			// the kernel need not add a route to it beside the one in its local table.
			addr.Flags = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE
		}
		if err := k.AddrAdd(tun, addr); err != nil {
			return fmt.Errorf("add the address %s to %s: %w", a, tun.Attrs().Name, err)
		}
		k.changes.added++
	}
	return nil
}

// removeStaleAddresses leaves tun with no address that is not in want.
func (k *kernel) removeStaleAddresses(tun netlink.Link, want []netip.Addr) error {
	have, err := k.addressesOf(tun)
	if err != nil {
		return err
	}
	for _, a := range want {
		delete(have, netip.PrefixFrom(a, a.BitLen()))
	}
	var errs []error
	for p, addr := range have {
		if err := k.AddrDel(tun, &addr); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("remove the address %s from %s: %w", p, tun.Attrs().Name, err))
			continue
		}
		k.changes.removed++
	}
	return errors.Join(errs...)
}

func (k *kernel) addressesOf(tun netlink.Link) (map[netip.Prefix]netlink.Addr, error) {
	listed, err := rtnetlink.Dump(func() ([]netlink.Addr, error) { return k.AddrList(tun, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the addresses of %s: %w", tun.Attrs().Name, err)
	}
	addrs := make(map[netip.Prefix]netlink.Addr, len(listed))
	for _, a := range listed {
		addrs[rtnetlink.Prefix(a.IPNet)] = a
	}
	return addrs, nil
}
