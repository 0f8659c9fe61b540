package cniplugin

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"weft/cniplugin/leases"
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
	store, err := conf.leases()
	if err != nil {
		return err
	}
	ctx, cancel := p.waiting()
	defer cancel()
	changes, err := leases.Collect(ctx, store, conf.valid)
	errs := []error{err}
	for _, change := range changes {
		fmt.Fprintln(os.Stderr, "weft-cni: gc:", change)
		if change.Action == leases.Kept {
			errs = append(errs, withCode(CodeStillRuns, errors.New(change.String())))
		}
	}
	return errors.Join(errs...)
}

// valid reports whether GC must leave an attachment alone.
func (c *config) valid(f leases.Found) bool {
	if c.ValidAttachments == nil {
		return f.Trouble() == ""
	}
	return slices.Contains(*c.ValidAttachments, types.GCAttachment{ContainerID: f.ContainerID, IfName: f.IfName})
}
