// Package cniplugin attaches pods to the node: the CNI operations ADD, DEL, CHECK and
// STATUS as ordinary functions (https://www.cni.dev/docs/spec/).
//
// ADD leases the pod's addresses, makes a veth with one end in the pod, and routes the
// addresses to it. Everything that it makes in the kernel hangs off that veth, whose
// name follows from the attachment: removing the veth undoes all of it, and DEL needs
// to know nothing else. The lease is always the first to be taken and the last to be
// given back, so an address that a pod may still have is never free.
//
// No pod is added unless the guard table stands, of which the kernel is asked each time.
//
// The package talks to no daemon and keeps no state of its own. It never touches a link
// that is not weft's, never releases a lease whose veth it could not remove, and writes
// nothing but the result to stdout.
package cniplugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"weft/internal/marks"
	"weft/internal/nftable"
	"weft/internal/nodefile"
	"weft/ipam"
)

// Type is the plugin's name in a network configuration and on disk.
const Type = "weft-cni"

// Versions are the versions of the CNI specification that the plugin speaks.
var Versions = version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0")

// Plugin is the CNI operations. They work in the network namespace of the thread that
// calls them: callers must hold on to it (runtime.LockOSThread).
type Plugin struct {
	stdout io.Writer

	// lockWait bounds how long one operation waits for others.
	lockWait time.Duration

	// sysctlRoot is where the kernel's network settings are, /proc/sys/net.
	sysctlRoot string

	// runStep runs one step of the wiring; tests fail or stop there.
	runStep func(step) error
}

// New returns the operations; ADD prints its result to stdout.
func New(stdout io.Writer) *Plugin {
	return &Plugin{
		stdout:     stdout,
		lockWait:   ipam.LockTimeout,
		sysctlRoot: "/proc/sys/net",
		runStep:    func(s step) error { return s.do() },
	}
}

// Funcs returns the operations as skel dispatches them.
func (p *Plugin) Funcs() skel.CNIFuncs {
	return skel.CNIFuncs{Add: p.Add, Del: p.Del, Check: p.Check, GC: p.GC, Status: p.Status}
}

// hold opens the network's leases and makes this process the only one that works on the
// attachment. Without it, a DEL could overtake the ADD that it follows, and free an
// address that the ADD is about to assign.
func (p *Plugin) hold(req *request) (*ipam.Store, func(), error) {
	store, err := req.conf.leases()
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := p.waiting()
	defer cancel()
	release, err := store.Hold(ctx, req.attachment)
	if err != nil {
		return nil, nil, err
	}
	return store, release, nil
}

func (p *Plugin) waiting() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), p.lockWait)
}

// readNode returns weftd's description of this node.
func readNode(runDir string) (nodefile.Node, error) {
	node, err := nodefile.Read(runDir)
	if err != nil {
		return nodefile.Node{}, err
	}
	if len(node.PodCIDRs) == 0 || node.TUN == "" || node.MTU <= 0 {
		return nodefile.Node{}, fmt.Errorf("%s in %s lacks podCIDRs, tun or mtu: restart weftd, which writes it again", nodefile.Name, runDir)
	}
	return node, nil
}

// CheckNamespace returns why the network namespace of the calling thread is not the one of
// the node that weftd described in runDir, or nil, also if weftd has described none.
func CheckNamespace(runDir string) error {
	node, err := nodefile.Read(runDir)
	if errors.Is(err, nodefile.ErrAbsent) {
		return nil
	}
	if err != nil {
		return err
	}
	if node.Guard == (nftable.Identity{}) { // by a weftd of before
		return nil
	}
	if id, err := nftable.Of(marks.Table); err != nil || id != node.Guard {
		return fmt.Errorf("weftd's guard table is not in this network namespace, so pods may be attached in another; " +
			"run this in the node's namespace, or start weftd, which makes the table")
	}
	return nil
}

// readGuarded is readNode for a node that the guard protects: weftd has made its table since
// the node booted, and the kernel has that table now, whether or not weftd runs.
func readGuarded(runDir string) (nodefile.Node, error) {
	node, err := readNode(runDir)
	if err != nil {
		return nodefile.Node{}, err
	}
	id, err := nftable.Of(marks.Table)
	if err == nil && (id != node.Guard || id == nftable.Identity{}) {
		err = fmt.Errorf("nftables table inet %s is not the one that weftd made: it has %d rules (%q) instead of %d (%q)",
			marks.Table, id.Rules, id.Comment, node.Guard.Rules, node.Guard.Comment)
	}
	if err != nil {
		return nodefile.Node{}, fmt.Errorf("the guard table is not in place, and pods' packets could leave in clear: %w; start weftd, which makes it", err)
	}
	return node, nil
}
