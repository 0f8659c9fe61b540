// Package cniplugin is the CNI operations ADD, DEL, CHECK, GC and STATUS as ordinary functions
// (https://www.cni.dev/docs/spec/), one file for each.
//
// ADD leases the pod's addresses, makes a veth with one end in the pod, and routes the
// addresses to it. The lease is always the first to be taken and the last to be given back, so
// an address that a pod may still have is never free. Package wiring does what is done in the
// kernel, package leases compares the leases with it.
//
// No pod is added unless the guard table stands, of which the kernel is asked each time.
//
// The package talks to no daemon, keeps no state of its own, and writes nothing but the result
// to stdout.
package cniplugin

import (
	"context"
	"io"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"weft/cniplugin/wiring"
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

	// runStep runs one step of the wiring; tests fail or stop there.
	runStep func(wiring.Step) error
}

// New returns the operations; ADD prints its result to stdout.
func New(stdout io.Writer) *Plugin {
	return &Plugin{
		stdout:   stdout,
		lockWait: ipam.LockTimeout,
		runStep:  func(s wiring.Step) error { return s.Do() },
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
