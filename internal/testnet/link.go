package testnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weft/internal/rtnetlink"
)

// Wire describes a veth pair.
type Wire struct {
	// MTU is in bytes; 0 means 1500.
	MTU int

	// Offloads are set on both ends; empty leaves them as the kernel made them.
	Offloads Offloads
}

// End is one end of a veth pair.
type End struct {
	Namespace *Namespace
	Link      string
	Addrs     []netip.Prefix
}

// Connect joins two namespaces by a veth pair whose both ends are up when it returns.
func Connect(ctx context.Context, a, b End, w Wire) error {
	if err := connect(ctx, a, b, w); err != nil {
		return fmt.Errorf("connect %s in %s with %s in %s: %w", a.Link, a.Namespace.name, b.Link, b.Namespace.name, err)
	}
	return nil
}

func connect(ctx context.Context, a, b End, w Wire) error {
	if w.MTU == 0 {
		w.MTU = 1500
	}
	veth := netlink.NewVeth(netlink.NewLinkAttrs())
	veth.Name, veth.MTU = a.Link, w.MTU
	veth.PeerName, veth.PeerMTU = b.Link, uint32(w.MTU)
	peer, err := netns.GetFromPath(b.Namespace.Path())
	if err != nil {
		return err
	}
	defer peer.Close()
	veth.PeerNamespace = netlink.NsFd(peer)
	err = a.Namespace.withNetlink(func(h *netlink.Handle) error { return h.LinkAdd(veth) })
	if err != nil {
		return fmt.Errorf("add the veth pair: %w", err)
	}
	for _, end := range []End{a, b} {
		if w.Offloads != "" {
			if err := end.Namespace.SetOffloads(ctx, end.Link, w.Offloads); err != nil {
				return err
			}
		}
		if err := end.Namespace.configure(end.Link, end.Addrs); err != nil {
			return err
		}
	}
	return errors.Join(a.waitUp(ctx), b.waitUp(ctx))
}

// waitUp returns when the link carries packets: what is sent in the short while
// after it was set up, before the kernel has noticed its carrier, is lost.
func (e End) waitUp(ctx context.Context) error {
	return Wait(ctx, e.Link+" to come up", func(context.Context) error {
		return e.Namespace.withLink(e.Link, func(_ *netlink.Handle, l netlink.Link) error {
			if state := l.Attrs().OperState; state != netlink.OperUp {
				return fmt.Errorf("it is %s", state)
			}
			return nil
		})
	})
}

// configure gives the link its addresses and brings it up.
func (n *Namespace) configure(link string, addrs []netip.Prefix) error {
	return n.withLink(link, func(h *netlink.Handle, l netlink.Link) error {
		for _, addr := range addrs {
			// Without duplicate address detection an IPv6 address works at once.
			a := &netlink.Addr{IPNet: rtnetlink.IPNet(addr), Flags: unix.IFA_F_NODAD}
			if err := h.AddrAdd(l, a); err != nil {
				return fmt.Errorf("add address %s: %w", addr, err)
			}
		}
		return h.LinkSetUp(l)
	})
}

// AddRoute adds a route to prefix by a gateway that the namespace reaches directly.
func (n *Namespace) AddRoute(prefix netip.Prefix, gateway netip.Addr) error {
	err := n.withNetlink(func(h *netlink.Handle) error {
		return h.RouteAdd(&netlink.Route{Dst: rtnetlink.IPNet(prefix), Gw: gateway.AsSlice()})
	})
	if err != nil {
		return fmt.Errorf("in %s: add a route to %s by %s: %w", n.name, prefix, gateway, err)
	}
	return nil
}

// Join writes addresses or prefixes as one text.
func Join[T fmt.Stringer](items []T, separator string) string {
	var texts []string
	for _, item := range items {
		texts = append(texts, item.String())
	}
	return strings.Join(texts, separator)
}

// Addrs lists the addresses of a link, without the link-local ones.
func (n *Namespace) Addrs(link string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	err := n.withLink(link, func(h *netlink.Handle, l netlink.Link) error {
		list, err := rtnetlink.Dump(func() ([]netlink.Addr, error) { return h.AddrList(l, netlink.FAMILY_ALL) })
		for _, a := range list {
			addr, _ := netip.AddrFromSlice(a.IP)
			if addr = addr.Unmap(); !addr.IsLinkLocalUnicast() {
				addrs = append(addrs, addr)
			}
		}
		return err
	})
	return addrs, err
}

func (n *Namespace) withLink(name string, f func(*netlink.Handle, netlink.Link) error) error {
	err := n.withNetlink(func(h *netlink.Handle) error {
		l, err := h.LinkByName(name)
		if err != nil {
			return err
		}
		return f(h, l)
	})
	if err != nil {
		return fmt.Errorf("link %s in %s: %w", name, n.name, err)
	}
	return nil
}

// withNetlink runs f with a netlink socket of the namespace.
func (n *Namespace) withNetlink(f func(*netlink.Handle) error) error {
	handle, err := netns.GetFromPath(n.Path())
	if err != nil {
		return err
	}
	defer handle.Close()
	h, err := netlink.NewHandleAt(handle, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer h.Close()
	return f(h)
}
