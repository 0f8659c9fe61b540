package cniplugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"weft/ipam"
)

// GC frees the leases and veths of a network that are not in the runtime's list of valid
// attachments, and says on stderr which. What visibly still runs it keeps, and names it
// in an error: a wrong list must not have an address given to two pods. Without a list
// it frees only what has no veth any more.
func (p *Plugin) GC(args *skel.CmdArgs) error { return cniError(p.gc(args)) }

func (p *Plugin) gc(args *skel.CmdArgs) error {
	conf, err := parseConfig(args.StdinData)
	if err != nil {
		return err
	}
	k, err := openHost()
	if err != nil {
		return err
	}
	defer k.close()
	store, err := conf.leases()
	if err != nil {
		return err
	}
	found, unreadable, err := survey([]*ipam.Store{store}, k)
	if err := cmp.Or(err, unreadable[conf.Name]); err != nil {
		return err
	}
	if err := k.findProcesses(found); err != nil {
		return err
	}
	ctx, cancel := p.waiting()
	defer cancel()
	var errs []error
	for _, f := range found {
		if f.Network == "" || conf.valid(f) {
			continue // no lease: it may be another network's
		}
		change, err := collect(ctx, store, k, f)
		if change.Action != "" {
			fmt.Fprintln(os.Stderr, "weft-cni: gc:", change)
		}
		if change.Action == Kept {
			err = withCode(CodeStillRuns, errors.New(change.String()))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// valid reports whether GC must leave an attachment alone.
func (c *config) valid(f Found) bool {
	if c.ValidAttachments == nil {
		return f.Trouble() == ""
	}
	return slices.Contains(*c.ValidAttachments, types.GCAttachment{ContainerID: f.ContainerID, IfName: f.IfName})
}

// collect frees an attachment that is not valid.
func collect(ctx context.Context, store *ipam.Store, k *kernel, f Found) (Change, error) {
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
	if now, err := lookAgain(store, k, f); err != nil || f.Trouble() != "" && now.Trouble() == "" {
		return Change{}, err // somebody has brought it to an end since
	}
	if err := free(ctx, store, k, f.Attachment); err != nil {
		return Change{}, err
	}
	return Change{Freed, f, why}, nil
}
