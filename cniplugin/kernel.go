package cniplugin

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weft/internal/marks"
)

// kernel is the two network namespaces that an operation works in: that of the calling
// thread, and the pod's, which some operations do without.
type kernel struct {
	host  *netlink.Handle
	pod   *netlink.Handle
	podNS ns.NetNS
}

func openHost() (*kernel, error) {
	host, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &kernel{host: host}, nil
}

// openBoth opens the pod's namespace at path too.
func openBoth(path string) (*kernel, error) {
	k, err := openHost()
	if err != nil {
		return nil, err
	}
	if err := k.openPod(path); err != nil {
		k.close()
		return nil, err
	}
	return k, nil
}

func (k *kernel) openPod(path string) (err error) {
	if k.podNS, err = ns.GetNS(path); err != nil {
		return withCode(types.ErrInvalidEnvironmentVariables, fmt.Errorf("CNI_NETNS: %w", err))
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
		return withCode(types.ErrInvalidEnvironmentVariables, fmt.Errorf("CNI_NETNS is %s: that is the node's own namespace", path))
	}
	if k.pod, err = netlink.NewHandleAt(netns.NsHandle(k.podNS.Fd()), unix.NETLINK_ROUTE); err != nil {
		return withCode(types.ErrIOFailure, fmt.Errorf("open netlink in %s: %w", path, err))
	}
	return nil
}

func (k *kernel) close() {
	k.host.Close()
	if k.pod != nil {
		k.pod.Close()
	}
	if k.podNS != nil {
		k.podNS.Close()
	}
}

// hostSide returns the host side of a pod's veth by its name, or nil if there is none.
// ours is false for a link that only has the name.
func (k *kernel) hostSide(name string) (link netlink.Link, ours bool, err error) {
	link, err = k.host.LinkByName(name)
	if _, notFound := errors.AsType[netlink.LinkNotFoundError](err); notFound {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("look up %s: %w", name, err)
	}
	return link, link.Type() == "veth" && link.Attrs().Group == marks.PodLinkGroup, nil
}

// removed says which veth was removed.
type removed int

const (
	noVeth         removed = iota // whether it ever was complete is not known
	incompleteVeth                // its ADD never came to an end
	completeVeth
)

// removeHostSide removes a pod's veth, both ends, and with it all addresses, routes and
// neighbours on it. One that is gone already, or that is not ours, is no error.
func (k *kernel) removeHostSide(name string) (removed, error) {
	link, ours, err := k.hostSide(name)
	if err != nil || !ours {
		return noVeth, err
	}
	was := incompleteVeth
	if link.Attrs().Alias != "" {
		was = completeVeth
	}
	// The kernel may remove it at the same moment, with the pod's namespace.
	if err := k.host.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return was, fmt.Errorf("remove %s: %w", name, err)
	}
	return was, nil
}

// sources returns those of the node's own addresses that it can speak to a pod from. The IPv4
// ones are on the host side of every veth; an IPv6 one goes with weftd's device.
func (k *kernel) sources(own []netip.Addr) (sources []netip.Addr, err error) {
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

// isLocal tells whether packets for addr end in the namespace of h.
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

// awaitReady waits for what the kernel does a little later than it is told: it notices
// the carrier (net/core/link_watch.c), and a worker adds the local routes of IPv6
// addresses (addrconf_dad_work). What comes to the pod before is lost.
func (k *kernel) awaitReady(w *wiring) error {
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(200 * time.Microsecond) {
		ready, err := k.ready(w)
		if err != nil || ready {
			return err
		}
		if time.Now().After(deadline) {
			return errors.New("it still does not, after 2 s")
		}
	}
}

func (k *kernel) ready(w *wiring) (bool, error) {
	for _, addr := range w.addresses {
		if is, err := isLocal(k.pod, addr); err != nil || !is {
			return false, err
		}
	}
	host, err := k.host.LinkByName(w.hostName)
	return err == nil && host.Attrs().OperState == netlink.OperUp, err
}

// addPodRoute adds a route in the pod. Each attachment of a pod has the same IPv4 gateway on a
// link of its own, so the routes to it stand side by side; of any other two with one
// destination the second is refused.
func (k *kernel) addPodRoute(r *netlink.Route) error {
	if r.Dst != nil && r.Dst.IP.Equal(gateway4.AsSlice()) {
		return k.pod.RouteAppend(r)
	}
	return k.pod.RouteAdd(r)
}
