// Package hostnet keeps what weftd owns in its node's kernel: the settings and
// addresses of the TUN device, the routes and rules with weft's protocol number,
// the nftables table that guards pods and masquerades their way out, the one that keeps
// bridged frames apart from that, and the few sysctls that a routing node needs.
//
// Apply is idempotent: a crashed predecessor, another program that flushed something
// and a changed cluster are one and the same case, a difference between what the
// kernel has and what must hold. It remembers what it has made hold only while Watch
// receives the kernel's events.
//
// It works in the network namespace of the calling thread. It never changes a
// route, rule, address or table that is not weft's, never touches the routes to
// local pods (they are weft-cni's), never creates the TUN device, and never takes
// back a sysctl.
package hostnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"weft/internal/nftable"
)

// Host applies Networks. Its methods may be called from several goroutines; they
// take turns.
type Host struct {
	log      *slog.Logger
	events   events
	repaired atomic.Uint64 // Applies that changed something
	repairs  repairs
	stands   atomic.Pointer[nftable.Identity] // of the guard table, as Guard returns it

	mu          sync.Mutex
	guard       guard
	bridge      bridgeTable
	bridgeFault string   // the error that was logged last
	swept       bool     // whether connections that began without this guard table are gone
	held        *held    // nil while it is not known which routes there are
	last        *Network // of the last Apply
	watched     bool
	compared    time.Time // when Apply last relied on nothing

	nics map[int]bool // the indices of those that there were; nil before the first Apply
}

// New returns a Host that logs to log what it changes.
func New(log *slog.Logger) *Host {
	return &Host{
		log:    log,
		events: events{some: make(chan struct{}, 1), isNIC: IsNIC},
		guard:  newGuard(),
		bridge: newBridgeTable(),
	}
}

// Protect makes hold what keeps pods' packets from leaving in clear, and others' from
// reaching pods, while it is not known yet which nodes there are: the guard table, and
// unreachable routes for the cluster CIDRs. It takes from n what the configuration says:
// TUN, ClusterCIDRs, Port, MarkMask, Trusted and RandomPorts. What an earlier Apply made hold stays; no packet is forwarded
// that was not before.
func (h *Host) Protect(ctx context.Context, n Network) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.noteGuard()
	if err := n.check(); err != nil {
		return err
	}
	replaced, err := h.guard.protect(ctx, n)
	if err != nil {
		return fmt.Errorf("apply the guard table: %w", err)
	}
	h.applyBridge(ctx, n, false, false)
	k, err := openKernel()
	if err != nil {
		return err
	}
	defer k.close()
	n.PodCIDRs, n.PeerCIDRs, n.PeerAddresses = nil, nil, nil
	missing, _, err := k.compare(wantedRoutes(n, 0))
	if err != nil {
		return fmt.Errorf("list weft's routes: %w", err)
	}
	conflicts, err := k.addRoutes(ctx, missing)
	if replaced || k.changes != (changes{}) {
		h.log.Info("host protected", "guardReplaced", replaced, "routesAdded", k.changes.added)
	}
	return errors.Join(err, k.explain(conflicts))
}

// applyBridge makes the bridge table stand. Where it can't, it only says so: frames are lost
// that no pod needs.
func (h *Host) applyBridge(ctx context.Context, n Network, untouched, again bool) {
	replaced, err := h.bridge.apply(ctx, n.MarkMask, untouched)
	if replaced {
		h.changed(&h.repairs.bridge, again)
		h.log.Info("bridge table replaced")
	}
	fault := fmt.Sprint(err)
	if err != nil && fault != h.bridgeFault {
		h.log.Warn("bridged frames count as routed", "error", err)
	}
	h.bridgeFault = fault
}

// Guard returns the identity of the guard table that the last Apply or Protect made, as
// weft-cni finds it in the kernel. It doesn't wait for one that is under way.
func (h *Host) Guard() nftable.Identity {
	if id := h.stands.Load(); id != nil {
		return *id
	}
	return nftable.Identity{}
}

func (h *Host) noteGuard() {
	var id nftable.Identity
	if h.guard.holds != nil {
		id = identity(*h.guard.holds)
	}
	h.stands.Store(&id)
}

// Apply makes n hold. It changes only what differs, and nothing if nothing does. The lists of
// n must not be changed any more.
//
// The guard comes first: unless it stands, no packet is routed to or from a pod,
// and Apply returns. Behind it Apply does what it can: the error it returns joins
// what it could not do, and the rest holds.
func (h *Host) Apply(ctx context.Context, n Network) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.noteGuard()
	if err := n.check(); err != nil {
		return err
	}
	n = n.canonical()
	again := reflect.DeepEqual(h.last, &n)
	h.last = &n
	trusts := h.trusts()
	if !trusts {
		h.held = nil // until this Apply, or a later one, has compared all
	}
	untouched := !h.events.guard.Swap(false) && trusts
	replaced, err := h.guard.apply(ctx, n, untouched)
	if err != nil {
		return fmt.Errorf("apply the guard table: %w", err)
	}
	if replaced {
		h.swept = false // connections may have begun while there was none
		h.changed(&h.repairs.guard, again)
		h.log.Info("guard table replaced")
	}
	h.applyBridge(ctx, n, untouched, again)
	k, err := openKernel()
	if err != nil {
		return err
	}
	defer k.close()
	tun, err := k.LinkByName(n.TUN)
	if err != nil {
		return fmt.Errorf("find the TUN device %s: %w", n.TUN, err)
	}
	if !h.swept {
		h.swept = true
		if err := k.dropUntranslated(n); err != nil {
			h.log.Warn("stale connections may remain", "error", err)
		}
	}
	linkErr := k.setUpTUN(tun, n)
	rulesErr := k.applyRules(ctx, wantedRules(n))
	routesErr := h.applyRoutes(ctx, k, &held{n, tun.Attrs().Index})
	// Removing an address removes the routes that prefer it as their source, so
	// stale addresses go when no route does any more.
	addressesErr := k.removeStaleAddresses(tun, n.Addresses)
	forwardingErr := errors.Join(k.enableForwarding(n), h.heedRouters(k, n))
	if k.changes != (changes{}) {
		h.changed(&h.repairs.network, again)
		h.log.Info("host network changed", "added", k.changes.added,
			"replaced", k.changes.replaced, "removed", k.changes.removed)
	}
	return errors.Join(linkErr, rulesErr, routesErr, addressesErr, forwardingErr)
}

// applyRoutes installs the routes of now. If it may trust that those of the last time are
// unchanged, it doesn't ask the kernel for them.
func (h *Host) applyRoutes(ctx context.Context, k *kernel, now *held) error {
	before := h.held
	if h.events.routes.Swap(false) {
		before = nil
	}
	h.events.wanted.Store(now)
	var err error
	switch {
	case before == nil:
		err = k.applyRoutes(ctx, wantedRoutes(now.Network, now.tun))
	case !before.sameRoutes(now):
		err = k.changeRoutes(ctx, before, now)
	}
	h.held = now
	if err != nil {
		h.held = nil
	}
	return err
}

// Remove deletes weft's routes, rules and tables, after which nothing protects pods: only
// `weft teardown` does so. What is gone already is no error.
// Sysctls stay: others may have come to rely on them. The addresses on the TUN
// device go with the device.
func (h *Host) Remove(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.noteGuard()

	k, err := openKernel()
	if err != nil {
		return err
	}
	defer k.close()
	h.held = nil
	h.events.wanted.Store(nil)
	err = errors.Join(
		k.applyRules(ctx, nil),
		k.applyRoutes(ctx, nil),
		h.bridge.remove(ctx),
		// The guard goes last, as it came first.
		h.guard.remove(ctx),
	)
	h.log.Info("guard table, bridge table, routes and rules removed", "removed", k.changes.removed)
	return err
}
