// Package rtnetlink is what weft's packages need beside github.com/vishvananda/netlink:
// dumps that miss nothing, and the way from net/netip to its types and back.
package rtnetlink

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// maxDumps bounds how often Dump asks.
const maxDumps = 20

// Dump returns what list returns. It calls list again if another program changed what is
// listed in the meantime, so that nothing is missing; if that happens 20 times in a row,
// the error is netlink.ErrDumpInterrupted. In a kernel without IPv6, lists of IPv6 are empty.
func Dump[T any](list func() ([]T, error)) ([]T, error) {
	for attempt := 1; ; attempt++ {
		items, err := list()
		switch {
		case errors.Is(err, netlink.ErrDumpInterrupted) && attempt < maxDumps:
			continue
		case errors.Is(err, unix.EAFNOSUPPORT):
			return nil, nil
		}
		return items, err
	}
}

// IPNet returns p in the type of package net.
func IPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// HostNet returns the /32 or /128 that holds a alone.
func HostNet(a netip.Addr) *net.IPNet { return IPNet(netip.PrefixFrom(a, a.BitLen())) }

// Addr returns ip in the type of package netip; the zero Addr stands for nil.
func Addr(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

// Prefix is the inverse of IPNet; the zero Prefix stands for nil. The length of the mask decides the
// family: netlink writes the destination of IPv4's default route as net.IPv4zero, which has 16 bytes.
func Prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if size == 32 {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, bits)
}
