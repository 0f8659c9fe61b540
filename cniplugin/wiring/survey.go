package wiring

import (
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/family"
	"weft/internal/marks"
	"weft/internal/rtnetlink"
	"weft/ipam"
)

// Veth is the host side of a pod's veth. Of one that is not Complete, only the name is known.
type Veth struct {
	Name       string
	Complete   bool
	Attachment ipam.Attachment
	Pod        string // NAMESPACE/NAME, if known
	// PodNS is how this namespace numbers the pod's (ip-netns(8), nsid).
	PodNS int

	index    int
	altNames []string
}

// Veths returns the host sides of all pods' veths.
func (k *Kernel) Veths() ([]Veth, error) {
	links, err := rtnetlink.Dump(k.host.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the pods' veths: %w", err)
	}
	var veths []Veth
	for _, link := range links {
		if !isHostSide(link) {
			continue
		}
		attrs := link.Attrs()
		v := Veth{Name: attrs.Name, PodNS: attrs.NetNsID, index: attrs.Index, altNames: attrs.AltNames}
		v.Attachment, v.Pod, v.Complete = parseAlias(attrs.Alias)
		veths = append(veths, v)
	}
	return veths, nil
}

// PodLinks returns the names of the host sides of all pods' veths.
func PodLinks() ([]string, error) {
	k, err := OpenHost()
	if err != nil {
		return nil, err
	}
	defer k.Close()
	veths, err := k.Veths()
	names := make([]string, len(veths))
	for i, v := range veths {
		names[i] = v.Name
	}
	return names, err
}

// AddressesBehind returns the addresses that are routed to a pod's veth, IPv4 first.
func (k *Kernel) AddressesBehind(v Veth) ([]netip.Addr, error) {
	addrs := []netip.Addr{}
	for _, f := range family.All {
		filter := &netlink.Route{LinkIndex: v.index, Protocol: marks.PodRouteProtocol}
		routes, err := rtnetlink.Dump(func() ([]netlink.Route, error) {
			return k.host.RouteListFiltered(f.AF(), filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
		})
		if err != nil {
			return nil, fmt.Errorf("list the routes to pods: %w", err)
		}
		for _, r := range routes {
			addrs = append(addrs, rtnetlink.Addr(r.Dst.IP))
		}
	}
	return addrs, nil
}

// HasPodSide reports whether the namespace at path has a veth with the given name and one of
// addresses. The two ends of a veth go together: if its host side is missing in this
// namespace, it is in another, or has another name.
func HasPodSide(path, ifName string, addresses []netip.Addr) bool {
	k, err := OpenBoth(path)
	if err != nil {
		return false
	}
	defer k.Close()
	link, err := k.pod.LinkByName(ifName)
	if err != nil || link.Type() != "veth" {
		return false
	}
	addrs, err := rtnetlink.Dump(func() ([]netlink.Addr, error) { return k.pod.AddrList(link, netlink.FAMILY_ALL) })
	return err == nil && slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return slices.Contains(addresses, rtnetlink.Addr(a.IP)) })
}

// Processes returns which processes live in each pod's network namespace, by its number as in
// Veth. In one that a runtime only keeps, for a pod that has ended, there are none.
func (k *Kernel) Processes() (map[int][]int, error) {
	namespaces, err := listNamespaces()
	if err != nil {
		return nil, err
	}
	numbered := map[int][]int{}
	for _, pids := range namespaces {
		if number, err := k.host.GetNetNsIdByPid(pids[0]); err == nil && number >= 0 {
			numbered[number] = pids
		}
	}
	return numbered, nil
}

// namespaceID is what stat(2) returns of a namespace's file.
type namespaceID struct{ device, inode uint64 }

func identify(path string) (namespaceID, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return namespaceID{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return namespaceID{stat.Dev, stat.Ino}, nil
}

// listNamespaces returns the processes of each network namespace but this process's own,
// which is no pod's.
func listNamespaces() (map[namespaceID][]int, error) {
	own, err := identify("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	namespaces := map[namespaceID][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// A process that has ended, or of another user, has no such file to read.
		if id, err := identify(filepath.Join("/proc", e.Name(), "ns/net")); err == nil && id != own {
			namespaces[id] = append(namespaces[id], pid)
		}
	}
	return namespaces, nil
}
