package wiring

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weft/internal/marks"
)

// Kernel is the two network namespaces that an operation works in: that of the calling
// thread, and the pod's, which some operations do without. Close frees it.
type Kernel struct {
	host  *netlink.Handle
	pod   *netlink.Handle
	podNS ns.NetNS
}

// NamespaceError says that a path is not that of a pod's network namespace.
type NamespaceError struct{ error }

// OpenHost opens the namespace of the calling thread.
func OpenHost() (*Kernel, error) {
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &Kernel{host: host}, nil
}

// OpenBoth opens the pod's namespace at path too.
func OpenBoth(path string) (*Kernel, error) {
	k, err := OpenHost()
	if err != nil {
		return nil, err
	}
	if err := k.openPod(path); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

func (k *Kernel) openPod(path string) (err error) {
	if k.podNS, err = ns.GetNS(path); err != nil {
		return NamespaceError{fmt.Errorf("CNI_NETNS: %w", err)}
	}
	own, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("find the node's own namespace: %w", err)
	}
	pods, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("CNI_NETNS: %w", err)
	}
	if os.SameFile(own, pods) {
		return NamespaceError{fmt.Errorf("CNI_NETNS is %s: that is the node's own namespace", path)}
	}
	if k.pod, err = netlink.NewHandleAt(netns.NsHandle(k.podNS.Fd()), unix.NETLINK_ROUTE); err != nil {
		// The library hides the kernel's error.
		return &fs.PathError{Op: "open netlink in", Path: path, Err: err}
	}
	return nil
}

// Close closes what was opened.
func (k *Kernel) Close() {
	k.host.Close()
	if k.pod != nil {
		k.pod.Close()
	}
	if k.podNS != nil {
		k.podNS.Close()
	}
}

// VethState is how far the veth of an attachment is made.
type VethState int

// The states. A Foreign link only has the name of the host side.
const (
	Absent VethState = iota
	Foreign
	Incomplete // its ADD did not finish
	Complete
)

// Look returns the state of the veth whose host side has the given name.
func (k *Kernel) Look(name string) (VethState, error) {
	_, state, err := k.hostSide(name)
	return state, err
}

// hostSide returns the link with the name of a host side too, unless it is Absent.
func (k *Kernel) hostSide(name string) (netlink.Link, VethState, error) {
	link, err := k.host.LinkByName(name)
	if _, notFound := errors.AsType[netlink.LinkNotFoundError](err); notFound {
		return nil, Absent, nil
	}
	switch {
	case err != nil:
		return nil, Absent, fmt.Errorf("look up %s: %w", name, err)
	case !isHostSide(link):
		return link, Foreign, nil
	case link.Attrs().Alias == "":
		return link, Incomplete, nil
	}
	return link, Complete, nil
}

// isHostSide reports whether a link is the host side of a pod's veth.
func isHostSide(link netlink.Link) bool {
	return link.Type() == "veth" && link.Attrs().Group == marks.PodLinkGroup
}

// Remove removes a pod's veth, both ends, and with it all addresses, routes and neighbours on
// it, and returns the state in which it was: Absent also if a Foreign link has its name.
func (k *Kernel) Remove(name string) (VethState, error) {
	link, was, err := k.hostSide(name)
	if err != nil || was == Absent || was == Foreign {
		return Absent, err
	}
	// The kernel may remove it at the same moment, with the pod's namespace.
	if err := k.host.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return was, fmt.Errorf("remove %s: %w", name, err)
	}
	return was, nil
}

// Sources returns those of the node's own addresses that it can speak to a pod from. The IPv4
// ones are on the host side of every veth; an IPv6 one goes with weftd's device.
func (k *Kernel) Sources(own []netip.Addr) (sources []netip.Addr, err error) {
	for _, addr := range own {
		usable := addr.Is4()
		if !usable {
			if usable, err = isLocal(k.host, addr); err != nil {
				return nil, err
			}
		}
		if usable {
			sources = append(sources, addr)
		}
	}
	return sources, nil
}

// isLocal reports whether packets for addr end in the namespace of h.
func isLocal(h *netlink.Handle, addr netip.Addr) (bool, error) {
	routes, err := h.RouteGet(addr.AsSlice())
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES),
		errors.Is(err, unix.EINVAL), errors.Is(err, unix.EAFNOSUPPORT):
		return false, nil // what routes of the several types answer, and a kernel without IPv6
	case err != nil:
		return false, fmt.Errorf("look up the route to %s: %w", addr, err)
	}
	return len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL, nil
}
