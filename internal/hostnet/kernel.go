package hostnet

import (
	"fmt"

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
