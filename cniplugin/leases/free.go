package leases

import (
	"context"
	"errors"
	"fmt"

	"weft/cniplugin/wiring"
	"weft/ipam"
)

// End ends the lease of an attachment whose veth was removed in the given state. Its addresses
// need no cooldown if the ADD did not finish: no other node knows them.
func End(ctx context.Context, store *ipam.Store, a ipam.Attachment, was wiring.VethState) error {
	end := store.Release
	if was == wiring.Incomplete {
		end = store.Cancel
	}
	_, _, err := end(ctx, a)
	return err
}

// free removes the veth of an attachment, and only when that is certain ends its lease.
// The caller holds the attachment.
func free(ctx context.Context, store *ipam.Store, k *wiring.Kernel, a ipam.Attachment) error {
	was, err := k.Remove(wiring.HostName(a))
	if err != nil {
		return fmt.Errorf("free %s: %w", a, err)
	}
	return End(ctx, store, a, was)
}

// Release frees an attachment by an operator's word: its veth and its lease in store. One
// in whose namespace processes live is only freed with force.
func Release(ctx context.Context, store *ipam.Store, f Found, force bool) (Change, error) {
	if len(f.Processes) > 0 && !force {
		return Change{}, fmt.Errorf("the pod of %s runs: processes %v run in its network namespace; end them, or use --force", f.Attachment, f.Processes)
	}
	k, err := wiring.OpenHost()
	if err != nil {
		return Change{}, err
	}
	defer k.Close()
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

// Collect frees the attachments with a lease in store that are not valid, and returns what it
// did. An attachment that visibly still runs is among the changes as Kept: a wrong list must
// not have an address given to two pods.
func Collect(ctx context.Context, store *ipam.Store, valid func(Found) bool) ([]Change, error) {
	k, err := wiring.OpenHost()
	if err != nil {
		return nil, err
	}
	defer k.Close()
	found, unreadable, err := survey([]*ipam.Store{store}, k)
	if err != nil {
		return nil, err
	}
	if err := unreadable[store.Network()]; err != nil {
		return nil, err
	}
	if err := findProcesses(found, k); err != nil {
		return nil, err
	}
	var changes []Change
	var errs []error
	for _, f := range found {
		if f.Network == "" || valid(f) {
			continue // no lease: it may be another network's
		}
		change, err := collect(ctx, store, k, f)
		if change.Action != "" {
			changes = append(changes, change)
		}
		errs = append(errs, err)
	}
	return changes, errors.Join(errs...)
}

// collect frees an attachment that is not valid.
func collect(ctx context.Context, store *ipam.Store, k *wiring.Kernel, f Found) (Change, error) {
	why := f.Trouble()
	if why == "" {
		why = "it is not in the list of valid attachments"
	}
	if len(f.Processes) > 0 {
		return Change{Kept, f, fmt.Sprintf("%s, but processes %v run in its network namespace; end them, or have the runtime DEL it", why, f.Processes)}, nil
	}
	if attachedElsewhere(f) {
		return Change{Kept, f, elsewhere}, nil
	}
	release, err := store.Hold(ctx, f.Attachment)
	if errors.Is(err, ipam.ErrLocked) {
		return Change{Kept, f, why + ", but another CNI call is working on it"}, nil
	}
	if err != nil {
		return Change{}, err
	}
	defer release()
	if now, err := look(f, store, k); err != nil || f.Trouble() != "" && now.Trouble() == "" {
		return Change{}, err // an ADD has completed it since
	}
	if err := free(ctx, store, k, f.Attachment); err != nil {
		return Change{}, err
	}
	return Change{Freed, f, why}, nil
}
