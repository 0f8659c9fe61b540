package cniplugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/ipam"
)

// Reconcile heals what a crash, a reboot or a runtime that forgot something has left on
// this node, in all networks with leases in stateDir, and returns what it did. It frees
// leases whose veth is gone and veths whose ADD never came to an end; it leases to pods
// what they have, in the given network; and it rebuilds that network's lease file from
// the running pods if it is damaged. What somebody works on at the moment it leaves alone.
// What it could not mend is among the changes too, as Kept; the error says why it could
// not even look.
//
// If own, the node's overlay addresses, is not nil, it also brings back what another
// program took from the host sides of pods' veths: their addresses, and the routes to the
// pods.
func Reconcile(ctx context.Context, stateDir, network string, own []netip.Addr) ([]Change, error) {
	k, err := openHost()
	if err != nil {
		return nil, err
	}
	defer k.close()
	wire := own != nil
	home, err := ipam.Open(stateDir, network)
	if err != nil {
		return nil, err
	}
	stores, err := ipam.OpenAll(stateDir)
	if err != nil {
		return nil, err
	}
	// Its first lease may be made at this moment.
	if !slices.ContainsFunc(stores, func(s *ipam.Store) bool { return s.Network() == network }) {
		stores = append(stores, home)
	}
	if own, err = k.sources(own); err != nil {
		return nil, err
	}
	var changes []Change
	found, unreadable, err := survey(stores, k)
	if err != nil {
		return nil, err
	}
	if len(unreadable) == 1 && errors.Is(unreadable[network], ipam.ErrCorrupt) {
		change, err := rebuild(ctx, home, found)
		if err != nil {
			return nil, err
		}
		changes = append(changes, change)
		if found, unreadable, err = survey(stores, k); err != nil {
			return changes, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(unreadable)) {
		changes = append(changes, Change{Kept, ofNetwork(name), unreadable[name].Error()})
	}
	for _, f := range found {
		// A pod without a lease may have it in a file that can't be read.
		if f.Network == "" && len(unreadable) > 0 {
			continue
		}
		store := home
		if i := slices.IndexFunc(stores, func(s *ipam.Store) bool { return s.Network() == f.Network }); i >= 0 {
			store = stores[i]
		}
		var change Change
		if err := k.renameAfterPod(f); err != nil {
			changes = append(changes, Change{Kept, f, err.Error()})
		}
		switch {
		case f.Trouble() != "":
			change, err = heal(ctx, store, k, f)
		case f.HasVeth && wire:
			change, err = rewire(store, k, f, own)
		default:
			continue
		}
		if err != nil {
			change = Change{Kept, f, strings.TrimPrefix(f.Trouble()+": "+err.Error(), ": ")}
		}
		if change.Action != "" {
			changes = append(changes, change)
		}
	}
	return changes, nil
}

// ofNetwork stands for a whole network where an attachment is expected.
func ofNetwork(name string) Found {
	return Found{Network: name, Lease: ipam.Lease{Addresses: []netip.Addr{}}}
}

// rebuild replaces a damaged lease file by one that has what those pods have whose leases
// are in no other file.
func rebuild(ctx context.Context, damaged *ipam.Store, found []Found) (Change, error) {
	var leases []ipam.Lease
	for _, f := range found {
		if f.Network == "" && f.Complete {
			leases = append(leases, f.Lease)
		}
	}
	kept, err := damaged.Rebuild(ctx, leases)
	if err != nil {
		return Change{}, err
	}
	return Change{Rebuilt, ofNetwork(damaged.Network()), fmt.Sprintf("the lease file %s was damaged: it was rebuilt with the addresses of %d running pods; "+
		"the damaged one is %s", damaged.Path(), len(leases), kept)}, nil
}

// heal does what Reconcile does for one attachment.
func heal(ctx context.Context, store *ipam.Store, k *kernel, f Found) (Change, error) {
	if f.Network == "" && !f.Complete {
		// Who it belongs to is not known, nor whether somebody is about to finish it. If it
		// is gone, or finished, somebody was.
		if link, ours, err := k.hostSide(f.Veth); err != nil || !ours || link.Attrs().Alias != "" {
			return Change{}, err
		}
		return Change{Kept, f, f.Trouble() + ": remove it if it stays (ip link delete " + f.Veth + ")"}, nil
	}
	release, ok, err := store.TryHold(f.Attachment)
	if err != nil || !ok {
		return Change{}, err
	}
	defer release()
	// What was found may have changed before it was held.
	now, err := lookAgain(store, k, f)
	if err != nil || now.Trouble() != f.Trouble() {
		return Change{}, err
	}
	switch {
	case f.Network == "":
		f.NetNS = "" // it is not known
		if err := store.Record(ctx, f.Lease); err != nil {
			return Change{Kept, f, err.Error()}, nil
		}
		return Change{Adopted, f, f.Trouble()}, nil
	case attachedElsewhere(now):
		return Change{Kept, f, elsewhere}, nil
	}
	if err := free(ctx, store, k, f.Attachment); err != nil {
		return Change{}, err
	}
	return Change{Freed, f, f.Trouble()}, nil
}

// rewire brings back what the host side of a complete veth lacks. Whether the pod's
// neighbour entries are there makes no difference: without them the kernel asks the pod.
func rewire(store *ipam.Store, k *kernel, f Found, own []netip.Addr) (Change, error) {
	if missing, err := k.missingOnHost(f, own); err != nil || len(missing) == 0 {
		return Change{}, err
	}
	release, ok, err := store.TryHold(f.Attachment)
	if err != nil || !ok {
		return Change{}, err
	}
	defer release()
	now, err := lookAgain(store, k, f)
	if err != nil || now.Trouble() != "" || !now.HasVeth {
		return Change{}, err
	}
	missing, err := k.missingOnHost(now, own)
	if err != nil || len(missing) == 0 {
		return Change{}, err
	}
	link, err := k.host.LinkByName(now.Veth)
	if err != nil {
		return Change{}, err
	}
	w := newWiring(&request{attachment: now.Attachment}, now.Addresses)
	for _, addr := range append(w.hostAddrs(), w.nodeAddrs(own)...) {
		if err := k.host.AddrReplace(link, addr); err != nil {
			return Change{}, fmt.Errorf("add the address %s to %s: %w", addr, now.Veth, err)
		}
	}
	for _, route := range w.hostRoutes(link.Attrs().Index, own) {
		err := k.host.RouteAdd(route)
		if errors.Is(err, unix.EEXIST) {
			// One that leads elsewhere is another pod's, and stays.
			var there []netlink.Route
			there, err = k.host.RouteGetWithOptions(route.Dst.IP, &netlink.RouteGetOptions{FIBMatch: true})
			if err == nil && len(there) > 0 && there[0].LinkIndex == route.LinkIndex && there[0].Protocol == route.Protocol {
				err = k.host.RouteReplace(route)
			}
		}
		if err != nil {
			return Change{}, fmt.Errorf("add the route %s: %w", route, err)
		}
	}
	if still, err := k.missingOnHost(now, own); err != nil || len(still) > 0 {
		return Change{Kept, now, strings.Join(still, "; ")}, err
	}
	return Change{Rewired, now, "another program had changed it: " + strings.Join(missing, "; ")}, nil
}

// renameAfterPod takes from a complete veth the alternative name that former releases gave
// it, which was the pod's alone.
func (k *kernel) renameAfterPod(f Found) error {
	old := altNameOf("", f.Attachment, f.Pod)
	if !f.Complete || !slices.Contains(f.altNames, old) {
		return nil
	}
	link, ours, err := k.hostSide(f.Veth)
	if err != nil || !ours {
		return err
	}
	err = k.host.LinkDelAltName(link, old)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) { // it is gone since
		return nil
	}
	if err == nil {
		err = nameAfterPod(k.host, link, altNameOf(altNamePrefix, f.Attachment, f.Pod))
	}
	if err != nil {
		return fmt.Errorf("give %s a different alternative name than %s: %w", f.Veth, old, err)
	}
	return nil
}

// missingOnHost returns what the host side of a veth lacks, as CHECK would.
func (k *kernel) missingOnHost(f Found, own []netip.Addr) ([]string, error) {
	link, ours, err := k.hostSide(f.Veth)
	if err != nil || !ours {
		return nil, err
	}
	c := &checker{kernel: k, wiring: newWiring(&request{attachment: f.Attachment}, f.Addresses), sources: own}
	err = errors.Join(
		c.checkAddrs("the host side", k.host, link, c.hostAddrs()),
		c.checkHostRoutes(link.Attrs().Index))
	return c.missing, err
}

// lookAgain returns f as it is now.
func lookAgain(store *ipam.Store, k *kernel, f Found) (Found, error) {
	lease, leased, err := store.Find(f.Attachment)
	if err != nil {
		return Found{}, err
	}
	if leased {
		f.Lease, f.Network = lease, store.Network()
	} else {
		f.Network = ""
	}
	link, ours, err := k.hostSide(f.Veth)
	f.HasVeth = ours
	f.Complete = ours && link.Attrs().Alias != ""
	return f, err
}

// free removes the veth of an attachment, and only when that is certain ends its lease.
// The caller holds the attachment.
func free(ctx context.Context, store *ipam.Store, k *kernel, a ipam.Attachment) error {
	was, err := k.removeHostSide(hostName(a))
	if err != nil {
		return fmt.Errorf("free %s: %w", a, err)
	}
	return endLease(ctx, store, a, was)
}

// Release frees an attachment by an operator's word: its veth and its lease in store. One
// in whose namespace processes live is only freed with force.
func Release(ctx context.Context, store *ipam.Store, f Found, force bool) (Change, error) {
	if len(f.Processes) > 0 && !force {
		return Change{}, fmt.Errorf("the pod of %s runs: processes %v run in its network namespace; end them, or use --force", f.Attachment, f.Processes)
	}
	k, err := openHost()
	if err != nil {
		return Change{}, err
	}
	defer k.close()
	release, err := store.Hold(ctx, f.Attachment)
	if err != nil {
		return Change{}, err
	}
	defer release()
	if err := free(ctx, store, k, f.Attachment); err != nil {
		return Change{}, err
	}
	return Change{Freed, f, "by hand"}, nil
}
