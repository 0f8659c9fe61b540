package leases

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"weft/cniplugin/wiring"
	"weft/ipam"
)

// Reconcile repairs what a crash, a reboot or a runtime that forgot something has left on
// this node, in all networks with leases in stateDir, and returns what it did. It frees
// leases whose veth is gone and veths whose ADD did not finish; it leases to pods
// what they have, in the given network; and it rebuilds a damaged lease file from the running
// pods that have no lease in another one. It leaves alone what another process works on.
// What it could not repair is among the changes too, as Kept; the error says why it could
// not even look.
//
// If own, the node's overlay addresses, is not nil, it also restores what another
// program took from the host sides of pods' veths: their addresses, and the routes to the
// pods.
func Reconcile(ctx context.Context, stateDir, network string, own []netip.Addr) ([]Change, error) {
	k, err := wiring.OpenHost()
	if err != nil {
		return nil, err
	}
	defer k.Close()
	home, stores, err := openStores(stateDir, network)
	if err != nil {
		return nil, err
	}
	sources, err := k.Sources(own)
	if err != nil {
		return nil, err
	}
	var changes []Change
	found, unreadable, err := survey(stores, k)
	if err != nil {
		return nil, err
	}
	if damaged := onlyDamaged(stores, unreadable); damaged != nil {
		change, err := rebuild(ctx, damaged, found)
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
		if err := k.RenameAfterPod(f.veth, f.Pod); err != nil {
			changes = append(changes, Change{Kept, f, err.Error()})
		}
		switch {
		case f.Trouble() != "":
			change, err = repair(ctx, store, k, f)
		case f.HasVeth && own != nil:
			change, err = rewire(store, k, f, sources)
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

// openStores returns the leases of network, and of all networks: that one's first lease may be
// made at this moment.
func openStores(stateDir, network string) (home *ipam.Store, all []*ipam.Store, err error) {
	if home, err = ipam.Open(stateDir, network); err != nil {
		return nil, nil, err
	}
	if all, err = ipam.OpenAll(stateDir); err != nil {
		return nil, nil, err
	}
	if !slices.ContainsFunc(all, func(s *ipam.Store) bool { return s.Network() == network }) {
		all = append(all, home)
	}
	return home, all, nil
}

// onlyDamaged returns the network whose lease file is damaged, if no other's is unreadable: all pods
// without a lease can only have theirs there.
func onlyDamaged(stores []*ipam.Store, unreadable map[string]error) *ipam.Store {
	if len(unreadable) != 1 {
		return nil
	}
	i := slices.IndexFunc(stores, func(s *ipam.Store) bool { return errors.Is(unreadable[s.Network()], ipam.ErrCorrupt) })
	if i < 0 {
		return nil
	}
	return stores[i]
}

// ofNetwork stands for a whole network where an attachment is expected.
func ofNetwork(name string) Found {
	return Found{Network: name, Lease: ipam.Lease{Addresses: []netip.Addr{}}}
}

// rebuild replaces a damaged lease file by one that has what those pods have whose leases
// are in no other file. A pod of another network may be among them whose lease was lost: its lease
// is freed when its veth goes.
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

// repair does what Reconcile does for one attachment that is in trouble.
func repair(ctx context.Context, store *ipam.Store, k *wiring.Kernel, f Found) (Change, error) {
	if f.Network == "" && !f.Complete {
		// Its attachment is unknown, so an ADD may be about to finish it. If it is gone, or
		// complete, one was.
		if state, err := k.Look(f.Veth); err != nil || state != wiring.Incomplete {
			return Change{}, err
		}
		return Change{Kept, f, f.Trouble() + ": remove it if it stays (ip link delete " + f.Veth + ")"}, nil
	}
	release, ok, err := store.TryHold(f.Attachment)
	if err != nil || !ok {
		return Change{}, err
	}
	defer release()
	// The attachment may have changed before it was held.
	now, err := look(f, store, k)
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

// rewire restores what the host side of a complete veth lacks. Whether the pod's
// neighbour entries are there makes no difference: without them the kernel asks the pod.
func rewire(store *ipam.Store, k *wiring.Kernel, f Found, sources []netip.Addr) (Change, error) {
	if missing, err := k.MissingOnHost(wiring.New(f.Lease), sources); err != nil || len(missing) == 0 {
		return Change{}, err
	}
	release, ok, err := store.TryHold(f.Attachment)
	if err != nil || !ok {
		return Change{}, err
	}
	defer release()
	now, err := look(f, store, k)
	if err != nil || now.Trouble() != "" || !now.HasVeth {
		return Change{}, err
	}
	w := wiring.New(now.Lease)
	missing, err := k.MissingOnHost(w, sources)
	if err != nil || len(missing) == 0 {
		return Change{}, err
	}
	if err := k.Restore(w, sources); err != nil {
		return Change{}, err
	}
	if still, err := k.MissingOnHost(w, sources); err != nil || len(still) > 0 {
		return Change{Kept, now, strings.Join(still, "; ")}, err
	}
	return Change{Rewired, now, "another program had changed it: " + strings.Join(missing, "; ")}, nil
}
