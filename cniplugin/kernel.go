package cniplugin

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	cnins "github.com/containernetworking/cni/pkg/ns"
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
	podNS, err := ns.GetNS(path)
	if err != nil {
		return nil, withCode(types.ErrInvalidEnvironmentVariables, fmt.Errorf("CNI_NETNS: %w", err))
	}
	// skel asks the same, but only when ADD has returned.
	if same, err := cnins.CheckNetNS(path); same || err != nil {
		podNS.Close()
		return nil, withCode(types.ErrInvalidEnvironmentVariables, fmt.Errorf("CNI_NETNS is %s: that is the node's own namespace", path))
	}
	k, err := openHost()
	if err != nil {
		podNS.Close()
		return nil, err
	}
	k.podNS = podNS
	k.pod, err = netlink.NewHandleAt(netns.NsHandle(podNS.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		k.close()
		return nil, fmt.Errorf("open netlink in %s: %w", path, err)
	}
	return k, nil
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
	var notFound netlink.LinkNotFoundError
	if errors.As(err, &notFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("look up %s: %w", name, err)
	}
	return link, link.Type() == "veth" && link.Attrs().Group == marks.PodLinkGroup, nil
}

// removeHostSide removes a pod's veth, both ends, and with it all addresses, routes and
// neighbours on it. One that is gone already, or that is not ours, is no error.
func (k *kernel) removeHostSide(name string) error {
	link, ours, err := k.hostSide(name)
	if err != nil || !ours {
		return err
	}
	// The kernel may remove it at the same moment, with the pod's namespace.
	if err := k.host.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// sourceAmong returns a function that finds the node's own address of an address's family
// among candidates, if the node has it: the kernel refuses a source that is not local.
func (k *kernel) sourceAmong(candidates []netip.Addr) func(netip.Addr) net.IP {
	return func(pod netip.Addr) net.IP {
		for _, own := range candidates {
			if own.Is4() != pod.Is4() {
				continue
			}
			routes, err := k.host.RouteGet(own.AsSlice())
			if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
				return own.AsSlice()
			}
		}
		return nil
	}
}

// list repeats a dump that changes elsewhere interrupted, so that nothing is missing.
func list[T any](dump func() ([]T, error)) ([]T, error) {
	var (
		items []T
		err   error
	)
	for range 20 {
		if items, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return items, err
		}
	}
	return items, err
}
