package cniplugin

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/marks"
	"weft/internal/rtnetlink"
	"weft/ipam"
)

// Found is an attachment of which a lease, a veth or both were found.
type Found struct {
	// Lease is what the lease says or, if there is none, what the veth tells.
	ipam.Lease

	// Network is where the lease is; empty if there is none.
	Network string `json:"network,omitempty"`

	// HasVeth says that weft-cni's veth is there, and Complete that its ADD came to an end.
	HasVeth  bool `json:"hasVeth"`
	Complete bool `json:"complete"`

	// Processes live in the pod's network namespace; the first few of them.
	Processes []int `json:"processes,omitempty"`

	podNS    int      // as in veth
	altNames []string // of the veth
}

// Trouble is what is wrong with the attachment; empty if nothing is.
func (f Found) Trouble() string {
	switch {
	case f.Network == "" && !f.Complete:
		return "its ADD did not finish, and it has no lease"
	case f.Network == "":
		return "the pod's addresses are not leased"
	case f.Veth != "" && !f.HasVeth:
		return "its veth is gone"
	case f.Veth != "" && !f.Complete:
		return "its ADD did not finish"
	}
	return ""
}

// Stranded reports whether a pod that weft-cni attached has an address outside the given pod
// CIDRs of its node, which have changed since: no other node can reach it.
func Stranded(l ipam.Lease, podCIDRs []netip.Prefix) bool {
	return l.Veth != "" && slices.ContainsFunc(l.Addresses, func(addr netip.Addr) bool {
		return !slices.ContainsFunc(podCIDRs, func(c netip.Prefix) bool { return c.Contains(addr) })
	})
}

// Survey returns every attachment of which there is a lease in stores, or a veth on this
// node. Leases come first, in the order of stores. It changes nothing and waits for no
// lock, so what it finds may change at the same moment.
func Survey(stores []*ipam.Store) ([]Found, error) {
	k, err := openHost()
	if err != nil {
		return nil, err
	}
	defer k.close()
	found, unreadable, err := survey(stores, k)
	if err := errors.Join(append(slices.Collect(maps.Values(unreadable)), err)...); err != nil {
		return nil, err
	}
	return found, k.findProcesses(found)
}

// survey is Survey but for the processes. Why leases can't be read it tells by network;
// what has its lease there seems to have none.
func survey(stores []*ipam.Store, k *kernel) (found []Found, unreadable map[string]error, err error) {
	// The veths first: one that is made after this has a lease that is found.
	veths, err := k.listVeths()
	if err != nil {
		return nil, nil, err
	}
	unreadable = map[string]error{}
	for _, s := range stores {
		leases, _, err := s.List()
		if err != nil {
			unreadable[s.Network()] = err
			continue
		}
		for _, l := range leases {
			f := Found{Lease: l, Network: s.Network()}
			if i := slices.IndexFunc(veths, func(v veth) bool { return v.name == l.Veth }); i >= 0 {
				f.HasVeth, f.Complete, f.podNS, f.altNames = true, veths[i].complete, veths[i].podNS, veths[i].altNames
				veths = slices.Delete(veths, i, i+1)
			}
			found = append(found, f)
		}
	}
	for _, v := range veths {
		f := Found{HasVeth: true, Complete: v.complete, podNS: v.podNS, altNames: v.altNames}
		f.Lease = ipam.Lease{Attachment: v.attachment, Pod: v.pod, Veth: v.name}
		if f.Addresses, err = k.addressesBehind(v.index); err != nil {
			return nil, nil, err
		}
		found = append(found, f)
	}
	return found, unreadable, nil
}

// veth is the host side of a pod's veth. Of one that is not complete, only the name and
// the index are known.
type veth struct {
	name       string
	index      int
	podNS      int // as this namespace numbers the pod's (ip-netns(8), nsid)
	altNames   []string
	complete   bool
	attachment ipam.Attachment
	pod        string
}

// listVeths returns the host sides of all pods' veths.
func (k *kernel) listVeths() ([]veth, error) {
	links, err := rtnetlink.Dump(k.host.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list the pods' veths: %w", err)
	}
	var veths []veth
	for _, link := range links {
		attrs := link.Attrs()
		if link.Type() != "veth" || attrs.Group != marks.PodLinkGroup {
			continue
		}
		v := veth{name: attrs.Name, index: attrs.Index, podNS: attrs.NetNsID, altNames: attrs.AltNames}
		v.attachment, v.pod, v.complete = parseAlias(attrs.Alias)
		veths = append(veths, v)
	}
	return veths, nil
}

// PodLinks returns the names of the host sides of all pods' veths.
func PodLinks() ([]string, error) {
	k, err := openHost()
	if err != nil {
		return nil, err
	}
	defer k.close()
	veths, err := k.listVeths()
	names := make([]string, len(veths))
	for i, v := range veths {
		names[i] = v.name
	}
	return names, err
}

// addressesBehind returns the addresses that are routed to a pod's veth, IPv4 first.
func (k *kernel) addressesBehind(link int) ([]netip.Addr, error) {
	addrs := []netip.Addr{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		filter := &netlink.Route{LinkIndex: link, Protocol: marks.PodRouteProtocol}
		routes, err := rtnetlink.Dump(func() ([]netlink.Route, error) {
			return k.host.RouteListFiltered(family, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
		})
		if err != nil {
			return nil, fmt.Errorf("list the routes to pods: %w", err)
		}
		for _, r := range routes {
			addrs = append(addrs, addrOf(r.Dst.IP))
		}
	}
	return addrs, nil
}

// mostNamed bounds how many processes of a pod are named.
const mostNamed = 3

// findProcesses fills in which processes live in the pods' network namespaces. In one
// that a runtime only keeps, for a pod that has ended, there are none.
func (k *kernel) findProcesses(found []Found) error {
	namespaces, err := listNamespaces()
	if err != nil {
		return err
	}
	numbered := map[int][]int{}
	for _, pids := range namespaces {
		if number, err := k.host.GetNetNsIdByPid(pids[0]); err == nil && number >= 0 {
			numbered[number] = pids
		}
	}
	for i, f := range found {
		var pids []int
		if f.HasVeth {
			pids = numbered[f.podNS]
		}
		found[i].Processes = pids[:min(len(pids), mostNamed)]
	}
	return nil
}

// namespaceID is what stat(2) tells of a namespace's file.
type namespaceID struct{ device, inode uint64 }

func identify(path string) (namespaceID, error) {
	var stat unix.Stat_t
	if err := unix.Stat(path, &stat); err != nil {
		return namespaceID{}, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return namespaceID{stat.Dev, stat.Ino}, nil
}

// attachedElsewhere reports whether a pod whose veth is missing here has its end of it. The
// two ends of a veth go together, so the other one is in another network namespace, or has
// another name.
func attachedElsewhere(f Found) bool {
	if f.Veth == "" || f.HasVeth || f.NetNS == "" {
		return false
	}
	k, err := openBoth(f.NetNS)
	if err != nil {
		return false
	}
	defer k.close()
	link, err := k.pod.LinkByName(f.IfName)
	if err != nil || link.Type() != "veth" {
		return false
	}
	addrs, err := rtnetlink.Dump(func() ([]netlink.Addr, error) { return k.pod.AddrList(link, netlink.FAMILY_ALL) })
	return err == nil && slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return slices.Contains(f.Addresses, addrOf(a.IP)) })
}

// elsewhere is why such a lease is kept.
const elsewhere = "its host side is not here, but the pod has the other end: this is not the node's network namespace, or the host side was renamed"

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
		// A process that has ended, or that is none of ours, tells nothing.
		if id, err := identify(filepath.Join("/proc", e.Name(), "ns/net")); err == nil && id != own {
			namespaces[id] = append(namespaces[id], pid)
		}
	}
	return namespaces, nil
}

// Change is what was done about an attachment.
type Change struct {
	// Action is what was done.
	Action Action `json:"action"`
	Found  `json:"attachment"`
	// Why names the reason, for people.
	Why string `json:"why"`
}

// Action is what GC or Reconcile did.
type Action string

// The actions. An attachment that was freed has neither veth nor lease any more.
const (
	Freed   Action = "freed"
	Adopted Action = "adopted" // a lease was recorded for a pod that had none
	Rebuilt Action = "rebuilt" // the lease file, and not one attachment
	Rewired Action = "rewired" // addresses and routes that another program took were brought back
	Kept    Action = "kept"    // only an operator, a DEL or a GC can mend it
)

// String is one line for people.
func (c Change) String() string {
	if c.Attachment == (ipam.Attachment{}) && c.Veth == "" { // not of one attachment
		return c.Why
	}
	who := c.Attachment.String()
	if c.Attachment == (ipam.Attachment{}) {
		who = c.Veth
	}
	if c.Pod != "" {
		who += " (pod " + c.Pod + ")"
	}
	for _, a := range c.Addresses {
		who += " " + a.String()
	}
	return fmt.Sprintf("%s %s: %s", c.Action, who, c.Why)
}
