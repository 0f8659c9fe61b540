package hostnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// kernel is rtnetlink(7) in the network namespace of the thread that opened it,
// for the time of one Apply.
type kernel struct {
	*netlink.Handle

	// strict has NETLINK_GET_STRICT_CHK set (netlink(7)), so that the kernel filters
	// dumps of routes by protocol. Without it a node with a full BGP table would hand
	// over all of it each time. Other kinds of dump are not well-formed enough for it.
	strict *netlink.Handle

	changes changes
}

// changes counts what was different in the kernel.
type changes struct{ added, replaced, removed int }

func openKernel() (*kernel, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	strict, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	k := &kernel{Handle: h, strict: strict}
	if err := strict.SetStrictCheck(true); err != nil {
		k.close()
		return nil, fmt.Errorf("ask rtnetlink for strict checks: %w", err)
	}
	return k, nil
}

func (k *kernel) close() {
	k.Close()
	k.strict.Close()
}

// dump repeats list until no other program changed what it lists in the middle of
// it. A kernel without IPv6 has nothing to list there.
func dump[T any](list func() ([]T, error)) ([]T, error) {
	for attempt := 1; ; attempt++ {
		items, err := list()
		switch {
		case errors.Is(err, netlink.ErrDumpInterrupted) && attempt < 10:
			continue
		case errors.Is(err, unix.EAFNOSUPPORT):
			return nil, nil
		}
		return items, err
	}
}

// families are the two that weft serves.
var families = [...]int{unix.AF_INET, unix.AF_INET6}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefixOf is the inverse of ipNet; the zero Prefix stands for nil.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr, bits)
}
