// Package hostnet keeps what weftd owns in its node's kernel: the settings and
// addresses of the TUN device, the routes and rules with weft's protocol number,
// the nftables table that guards pods and masquerades their way out, and the few
// sysctls that a routing node needs.
//
// Apply is idempotent: a crashed predecessor, another program that flushed something
// and a changed cluster are one and the same case, a difference between what the
// kernel has and what must hold. It remembers what it has made hold only while Watch
// would be told of a change.
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
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/marks"
	"weft/internal/nftable"
)

// Network is what must hold on this node. Any list may be empty, and each may
// hold addresses of both families.
type Network struct {
	// TUN is the name of the device that leads to the other nodes' pods. It exists
	// already and belongs to weft alone: an address on it that is not in Addresses
	// is removed.
	TUN string

	// MTU is the largest packet in bytes that TUN takes; at least 1280 where IPv6
	// is used (RFC 8200, section 5).
	MTU int

	// GSOMaxSize and GSOMaxSegs bound the super-packets that the node itself sends
	// into TUN, in bytes and in segments.
	GSOMaxSize, GSOMaxSegs int

	// Addresses are the node's own overlay addresses, out of PodCIDRs. TUN carries them.
	Addresses []netip.Addr

	// PodCIDRs are this node's. They lie within ClusterCIDRs.
	PodCIDRs []netip.Prefix

	// ClusterCIDRs are where every pod's address comes from.
	ClusterCIDRs []netip.Prefix

	// PeerCIDRs are the other nodes' pod CIDRs. One that lies outside ClusterCIDRs,
	// or overlaps PodCIDRs, is left out and reported.
	PeerCIDRs []netip.Prefix

	// PeerAddresses are the other nodes' underlay addresses. This node's pods reach
	// them through the overlay, never bare on the underlay and never masqueraded;
	// the node itself reaches them as before.
	PeerAddresses []netip.Addr

	// Senders are where the other nodes' datagrams come from: their underlay addresses,
	// unless they have moved. Who sends from elsewhere is a stranger, until it is
	// known better.
	Senders []netip.Addr

	// PeerEndpoints are where the other nodes receive datagrams: every address that is
	// known of a node, with its port. Of this node only weftd may send there.
	PeerEndpoints []netip.AddrPort

	// Port is the UDP port on which this node receives datagrams.
	Port uint16

	// SourcePorts are the UDP ports from which this node sends them.
	SourcePorts []uint16

	// MarkMask is the bits of packets' marks that are weft's.
	MarkMask marks.Mask

	// Trusted are the names of interfaces from which this node's pods may be reached by
	// their addresses, such as a VPN's.
	Trusted []string

	// RandomPorts says that what pods send to the outside gets a random source port, and
	// not the pod's own where that is free.
	RandomPorts bool
}

// Host applies Networks. Its methods may be called from several goroutines; they
// take turns.
type Host struct {
	log    *slog.Logger
	events events
	mended atomic.Uint64 // Applies that changed something

	mu       sync.Mutex
	given    Network  // to the last Apply
	checked  *checked // given; nil before the first Apply
	guard    guard
	swept    bool  // whether connections that the guard has not translated are gone
	held     *held // nil while it is not known which routes there are
	watched  bool
	compared time.Time // when Apply last relied on nothing

	drops drops
}

// New returns a Host that logs to log what it changes.
func New(log *slog.Logger) *Host {
	return &Host{log: log, events: events{some: make(chan struct{}, 1)}}
}

// Protect makes hold what keeps pods' packets from leaving in clear, and others' from
// reaching pods, while it is not known yet which nodes there are: the guard table, and
// unreachable routes for the cluster CIDRs. It takes from n what the configuration says:
// TUN, ClusterCIDRs, Port, MarkMask, Trusted and RandomPorts. What an earlier Apply made hold stays; no packet is forwarded
// that was not before.
func (h *Host) Protect(ctx context.Context, n Network) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, _, err := n.check()
	if err != nil {
		return err
	}
	replaced, err := h.guard.protect(ctx, n)
	if err != nil {
		return fmt.Errorf("apply the guard table: %w", err)
	}
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
		h.log.Info("host protected", "guard replaced", replaced, "routes added", k.changes.added)
	}
	return errors.Join(err, k.explain(conflicts))
}

// Guard returns the identity of the guard table that the last Apply or Protect made, as
// weft-cni finds it in the kernel.
func (h *Host) Guard() nftable.Identity {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.guard.holds == nil {
		return nftable.Identity{}
	}
	return identity(*h.guard.holds)
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
	if h.checked == nil || !n.equal(h.given) {
		c := new(checked)
		c.Network, c.refused, c.err = n.check()
		h.given, h.checked = n, c
	}
	if h.checked.err != nil {
		return h.checked.err
	}
	n, refused := h.checked.Network, h.checked.refused

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
		h.mended.Add(1)
		h.log.Info("guard table replaced")
	}
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
	forwardingErr := k.enableForwarding(n)
	if k.changes != (changes{}) {
		h.mended.Add(1)
		h.log.Info("host network changed", "added", k.changes.added,
			"replaced", k.changes.replaced, "removed", k.changes.removed)
	}
	return errors.Join(refused, linkErr, rulesErr, routesErr, addressesErr, forwardingErr)
}

// applyRoutes makes the routes of now hold. If it may trust that nobody has changed those
// that it made hold the last time, it doesn't ask the kernel for them.
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

// Remove deletes weft's routes, rules and table, after which nothing protects pods: only
// `weft teardown` does so. What is gone already is no error.
// Sysctls stay: others may have come to rely on them. The addresses on the TUN
// device go with the device.
func (h *Host) Remove(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()

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
		// The guard goes last, as it came first.
		h.guard.remove(ctx),
	)
	h.log.Info("guard table, routes and rules removed", "removed", k.changes.removed)
	return err
}

// equal reports whether two Networks are the same. To find that out takes a tenth of the time
// that check takes.
func (n Network) equal(o Network) bool {
	return n.TUN == o.TUN && n.MTU == o.MTU && n.GSOMaxSize == o.GSOMaxSize && n.GSOMaxSegs == o.GSOMaxSegs && n.Port == o.Port &&
		n.MarkMask == o.MarkMask && n.RandomPorts == o.RandomPorts &&
		slices.Equal(n.Trusted, o.Trusted) &&
		slices.Equal(n.Addresses, o.Addresses) &&
		slices.Equal(n.PodCIDRs, o.PodCIDRs) &&
		slices.Equal(n.ClusterCIDRs, o.ClusterCIDRs) &&
		slices.Equal(n.PeerCIDRs, o.PeerCIDRs) &&
		slices.Equal(n.PeerAddresses, o.PeerAddresses) &&
		slices.Equal(n.Senders, o.Senders) &&
		slices.Equal(n.PeerEndpoints, o.PeerEndpoints) &&
		slices.Equal(n.SourcePorts, o.SourcePorts)
}

// checked is what check has returned.
type checked struct {
	Network
	refused, err error
}

// check returns n in canonical form. A mistake in what describes this node is
// an error; a mistake in what describes a peer costs that peer alone its routes,
// and is reported in refused. What describes peers is sorted, each once.
func (n Network) check() (_ Network, refused, err error) {
	if n.TUN == "" || len(n.TUN) >= unix.IFNAMSIZ || strings.ContainsAny(n.TUN, "/\"\\* \t\n") {
		return n, nil, fmt.Errorf("%q is no name for the TUN device", n.TUN)
	}
	if n.Port == 0 {
		return n, nil, errors.New("weft's UDP port is not known")
	}
	for _, name := range n.Trusted {
		if name == n.TUN || strings.ContainsAny(name, "/\"\\* \t\n") {
			return n, nil, fmt.Errorf("%q is no name for an interface that may reach pods", name)
		}
	}
	if err := n.MarkMask.Check(); err != nil {
		return n, nil, fmt.Errorf("the mask of weft's marks: %w", err)
	}
	for _, p := range n.ClusterCIDRs {
		if !p.IsValid() || p != p.Masked() {
			return n, nil, fmt.Errorf("cluster CIDR %s is no CIDR", p)
		}
	}
	for _, p := range n.PodCIDRs {
		if !n.inCluster(p) {
			return n, nil, fmt.Errorf("pod CIDR %s is no CIDR within the cluster CIDRs %s", p, n.ClusterCIDRs)
		}
	}
	for _, a := range n.Addresses {
		if !n.inCluster(netip.PrefixFrom(a, a.BitLen())) {
			return n, nil, fmt.Errorf("overlay address %s is not within the cluster CIDRs %s", a, n.ClusterCIDRs)
		}
	}
	n.PeerCIDRs, n.PeerAddresses, refused = n.checkedPeers()
	n.Senders = canonical(n.Senders, netip.Addr.Compare)
	n.PeerEndpoints = canonical(n.PeerEndpoints, netip.AddrPort.Compare)
	return n, refused, nil
}

func (n Network) checkedPeers() (cidrs []netip.Prefix, addrs []netip.Addr, refused error) {
	var errs []error
	cidrs = n.PeerCIDRs // shared, as a rule: there may be very many
	for _, p := range n.PeerCIDRs {
		if err := n.checkPeerCIDR(p); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		cidrs = slices.DeleteFunc(slices.Clone(cidrs), func(p netip.Prefix) bool { return n.checkPeerCIDR(p) != nil })
	}
	for _, a := range n.PeerAddresses {
		a = a.Unmap()
		// Pods can't reach a link-local address, nor one of a family that they don't
		// have, with or without a route.
		if a.IsGlobalUnicast() && n.uses(familyOf(a)) {
			addrs = append(addrs, a)
		}
	}
	return canonical(cidrs, netip.Prefix.Compare), canonical(addrs, netip.Addr.Compare), firstOf(errs)
}

func (n Network) checkPeerCIDR(p netip.Prefix) error {
	if !n.inCluster(p) {
		return fmt.Errorf("a peer's pod CIDR %s is no CIDR within the cluster CIDRs %s", p, n.ClusterCIDRs)
	}
	if slices.ContainsFunc(n.PodCIDRs, p.Overlaps) {
		return fmt.Errorf("a peer's pod CIDR %s overlaps this node's %s", p, n.PodCIDRs)
	}
	return nil
}

// canonical returns all, sorted and each once. It doesn't change all.
func canonical[T comparable](all []T, compare func(T, T) int) []T {
	for i := range len(all) - 1 {
		if compare(all[i], all[i+1]) >= 0 {
			all = slices.Clone(all)
			slices.SortFunc(all, compare)
			return slices.Compact(all)
		}
	}
	return all
}

// apart returns what only the one and what only the other of two lists has, both of which
// are as canonical returns them.
func apart[T any](a, b []T, compare func(T, T) int) (onlyA, onlyB []T) {
	for len(a) > 0 && len(b) > 0 {
		switch c := compare(a[0], b[0]); {
		case c < 0:
			onlyA, a = append(onlyA, a[0]), a[1:]
		case c > 0:
			onlyB, b = append(onlyB, b[0]), b[1:]
		default:
			a, b = a[1:], b[1:]
		}
	}
	return append(onlyA, a...), append(onlyB, b...)
}

// inCluster reports whether p is a canonical prefix within the cluster CIDRs.
func (n Network) inCluster(p netip.Prefix) bool {
	if !p.IsValid() || p != p.Masked() {
		return false
	}
	return slices.ContainsFunc(n.ClusterCIDRs, func(c netip.Prefix) bool {
		return c.Bits() <= p.Bits() && c.Contains(p.Addr())
	})
}

// uses reports whether the overlay has addresses of the family.
func (n Network) uses(family int) bool {
	return slices.ContainsFunc(n.ClusterCIDRs, func(p netip.Prefix) bool { return familyOf(p.Addr()) == family })
}

// familyOf returns the address family (address_families(7)) of a.
func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// firstOf joins the first few of errs, and says how many more there are: what goes
// wrong for one of 5,000 peers tends to go wrong for all.
func firstOf(errs []error) error {
	const few = 5
	if len(errs) <= few {
		return errors.Join(errs...)
	}
	return errors.Join(append(errs[:few:few], fmt.Errorf("and %d more errors of this kind", len(errs)-few))...)
}
