// Package leases compares the leases of a node with the veths that pods have, and repairs what
// differs: for GC, for weftd and for `weft ipam`.
//
// A veth is proof that an address may be in use. So the package never ends a lease whose veth
// it could not remove, and holds the attachment while it decides, as ADD and DEL do.
package leases

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"weft/cniplugin/wiring"
	"weft/internal/nodefile"
	"weft/ipam"
)

// NodePool is the addresses of a node's pods.
func NodePool(node nodefile.Node) ipam.Pool {
	pool := ipam.Pool{
		Ranges:   node.PodCIDRs,
		Reserved: slices.Clone(node.Reserved),
		Cooldown: time.Duration(node.CooldownSeconds) * time.Second,
	}
	for _, addr := range node.Addresses {
		pool.Reserved = append(pool.Reserved, netip.PrefixFrom(addr, addr.BitLen()))
	}
	return pool
}

// Found is an attachment of which a lease, a veth or both were found.
type Found struct {
	// Lease is what the lease says or, if there is none, what the veth does.
	ipam.Lease

	// Network is where the lease is; empty if there is none.
	Network string `json:"network,omitempty"`

	// HasVeth says that weft-cni's veth is there, and Complete that its ADD finished.
	HasVeth  bool `json:"hasVeth"`
	Complete bool `json:"complete"`

	// Processes live in the pod's network namespace; the first few of them.
	Processes []int `json:"processes,omitempty"`

	veth wiring.Veth
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
	k, err := wiring.OpenHost()
	if err != nil {
		return nil, err
	}
	defer k.Close()
	found, unreadable, err := survey(stores, k)
	if err := errors.Join(append(slices.Collect(maps.Values(unreadable)), err)...); err != nil {
		return nil, err
	}
	return found, findProcesses(found, k)
}

// survey is Survey but for the processes. unreadable says by network why leases can't be read;
// an attachment that has its lease there seems to have none.
func survey(stores []*ipam.Store, k *wiring.Kernel) (found []Found, unreadable map[string]error, err error) {
	// The veths first: one that is made after this has a lease that is found.
	veths, err := k.Veths()
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
			if i := slices.IndexFunc(veths, func(v wiring.Veth) bool { return v.Name == l.Veth }); i >= 0 {
				f.HasVeth, f.Complete, f.veth = true, veths[i].Complete, veths[i]
				veths = slices.Delete(veths, i, i+1)
			}
			found = append(found, f)
		}
	}
	for _, v := range veths {
		f := Found{HasVeth: true, Complete: v.Complete, veth: v}
		f.Lease = ipam.Lease{Attachment: v.Attachment, Pod: v.Pod, Veth: v.Name}
		if f.Addresses, err = k.AddressesBehind(v); err != nil {
			return nil, nil, err
		}
		found = append(found, f)
	}
	return found, unreadable, nil
}

// mostNamed bounds how many processes of a pod are named.
const mostNamed = 3

// findProcesses fills in which processes live in the pods' network namespaces.
func findProcesses(found []Found, k *wiring.Kernel) error {
	processes, err := k.Processes()
	if err != nil {
		return err
	}
	for i, f := range found {
		if f.HasVeth {
			pids := processes[f.veth.PodNS]
			found[i].Processes = pids[:min(len(pids), mostNamed)]
		}
	}
	return nil
}

// look returns f as it is now.
func look(f Found, store *ipam.Store, k *wiring.Kernel) (Found, error) {
	lease, leased, err := store.Find(f.Attachment)
	if err != nil {
		return Found{}, err
	}
	if leased {
		f.Lease, f.Network = lease, store.Network()
	} else {
		f.Network = ""
	}
	state, err := k.Look(f.Veth)
	f.HasVeth = state >= wiring.Incomplete
	f.Complete = state == wiring.Complete
	return f, err
}

// elsewhere is why the lease of a pod that is attachedElsewhere is kept.
const elsewhere = "its host side is not here, but the pod has the other end: this is not the node's network namespace, or the host side was renamed"

// attachedElsewhere reports whether a pod whose veth is missing here has its end of it.
func attachedElsewhere(f Found) bool {
	return f.Veth != "" && !f.HasVeth && f.NetNS != "" && wiring.HasPodSide(f.NetNS, f.IfName, f.Addresses)
}
