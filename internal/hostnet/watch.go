package hostnet

import (
	"context"
	"encoding/binary"
	"maps"
	"math"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"weft/internal/marks"
	"weft/internal/rtnetlink"
)

const (
	// debounce is how long Watch waits for more of a change: a flush is many events.
	debounce = 100 * time.Millisecond

	// So many changes are repaired at once; after that one in each interval, because
	// another program seems to undo it each time.
	repairBurst    = 20
	repairInterval = 10 * time.Second

	// trustedFor is how long Apply goes without looking at the routes and the guard table
	// while there is no event of a change. To look takes 0.1 s of a core at 15,000 routes.
	trustedFor = 5 * time.Minute
)

// held is what Apply makes hold, on the TUN device with this index.
type held struct {
	Network
	tun int
}

// events is what has happened since Apply last looked.
type events struct {
	// wanted is what the last Apply made hold, or the present one does.
	wanted atomic.Pointer[held]

	// routes and guard say that some of weft's routes, or the guard table, may have been
	// changed by others.
	routes, guard atomic.Bool

	// nics says that a NIC has appeared, as IsNIC understands it: tests have no cards.
	nics  atomic.Bool
	isNIC func(netlink.Link) bool

	some chan struct{} // holds one
}

// Watch receives the kernel's events of changes to what is weft's, in the network namespace of
// the calling thread, until ctx is done. It then returns nil. In the meantime Apply looks at
// routes and at the guard table only when they may have changed.
//
// It calls repair, which must call Apply, 0.1 s after the first event of a change; if there
// was something to repair 20 times in a short while, or repair failed, only once in 10 s.
// Repair runs on the goroutine of the caller.
func (h *Host) Watch(ctx context.Context, repair func() error) error {
	routing, err := rtnetlink.SubscribeRouting()
	if err != nil {
		return err
	}
	tables, err := rtnetlink.Subscribe(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		routing.Close()
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return routing.Receive(ctx, h.events.routing) })
	group.Go(func() error { return tables.Receive(ctx, h.events.tables) })
	h.watch(true)
	defer h.watch(false)

	limit := rate.NewLimiter(rate.Every(repairInterval), repairBurst)
	for {
		select {
		case <-ctx.Done():
			return group.Wait()
		case <-h.events.some:
		}
		select {
		case <-ctx.Done():
			return group.Wait()
		case <-time.After(debounce):
		}
		before := h.repaired.Load()
		if err := repair(); err != nil || h.repaired.Load() != before {
			_ = limit.Wait(ctx) // fails when ctx is done
		}
	}
}

// watch sets whether Apply may rely on events. What is known from before doesn't count.
func (h *Host) watch(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watched, h.compared = on, time.Time{}
	h.events.nics.Store(true)
}

// trusts says whether an Apply may rely on events. If not, the Apply looks at everything, and
// those after it may.
func (h *Host) trusts() bool {
	if h.watched && time.Since(h.compared) < trustedFor {
		return true
	}
	h.compared = time.Now()
	return false
}

func (e *events) signal() {
	select {
	case e.some <- struct{}{}:
	default: // one waits already
	}
}

// routing takes in messages of rtnetlink; nil says that some were lost.
func (e *events) routing(messages []syscall.NetlinkMessage) {
	if messages == nil {
		e.routes.Store(true)
		e.nics.Store(true)
		e.signal()
		return
	}
	wanted := e.wanted.Load()
	if wanted == nil {
		return
	}
	for _, m := range messages {
		switch m.Header.Type {
		case unix.RTM_NEWRULE, unix.RTM_DELRULE: // these are few, and Apply looks at them always
			e.signal()
		case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
			if wanted.contradictedBy(m) {
				e.routes.Store(true)
				e.signal()
			}
		default:
			// A device that goes down, or loses an address, loses routes without a word.
			if linkOf(m) == wanted.tun {
				e.routes.Store(true)
				e.signal()
			}
			if e.isNewNIC(m) {
				e.nics.Store(true)
				e.signal()
			}
		}
	}
}

// isNewNIC says whether an event is of a NIC that has appeared: its flags have all "changed".
func (e *events) isNewNIC(m syscall.NetlinkMessage) bool {
	if m.Header.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg || nl.DeserializeIfInfomsg(m.Data).Change != math.MaxUint32 {
		return false
	}
	link, err := netlink.LinkDeserialize(nil, m.Data)
	return err == nil && e.isNIC(link)
}

// linkOf returns the device that an event of links or addresses is about.
func linkOf(m syscall.NetlinkMessage) int {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(m.Data) >= unix.SizeofIfInfomsg {
			return int(nl.DeserializeIfInfomsg(m.Data).Index)
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if len(m.Data) >= unix.SizeofIfAddrmsg {
			return int(nl.DeserializeIfAddrmsg(m.Data).Index)
		}
	}
	return 0
}

// contradictedBy says whether an event of routes is anything but what Apply itself causes
// and what doesn't concern weft.
func (h *held) contradictedBy(m syscall.NetlinkMessage) bool {
	if len(m.Data) < unix.SizeofRtMsg {
		return false
	}
	header := nl.DeserializeRtMsg(m.Data)
	added := m.Header.Type == unix.RTM_NEWROUTE
	another := header.Protocol != marks.RouteProtocol
	if another && added && m.Header.Flags&unix.NLM_F_REPLACE == 0 {
		return false
	}
	key, ok := keyOf(header, m.Data[unix.SizeofRtMsg:])
	wanted := ok && h.wants(key)
	if another { // it has taken the place of weft's, or is out of its way now
		return wanted
	}
	return wanted != added
}

// keyOf reads what makes a route's key; ok is false if it can't be read.
func keyOf(header *nl.RtMsg, attributes []byte) (key routeKey, ok bool) {
	key.table = int(header.Table)
	dst, ok := netip.IPv4Unspecified(), true
	if header.Family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	for kind, value := range rtnetlink.Attributes(attributes) {
		switch {
		case kind == unix.RTA_DST:
			dst, ok = netip.AddrFromSlice(value)
		case len(value) < 4:
		case kind == unix.RTA_PRIORITY:
			key.metric = int(binary.NativeEndian.Uint32(value))
		case kind == unix.RTA_TABLE:
			key.table = int(binary.NativeEndian.Uint32(value))
		}
	}
	key.dst = netip.PrefixFrom(dst, int(header.Dst_len))
	return key, ok
}

// wants says whether one of the routes that must hold has the key: see wantedRoutes.
func (h *held) wants(k routeKey) bool {
	switch {
	case k.table == marks.RouteTable:
		_, found := slices.BinarySearchFunc(h.PeerAddresses, k.dst.Addr(), netip.Addr.Compare)
		return found && k.dst.IsSingleIP() && k.metric == peerMetric(k.dst)
	case k.table != unix.RT_TABLE_MAIN:
		return false
	case k.metric == unreachableMetric:
		return slices.Contains(h.ClusterCIDRs, k.dst) || slices.Contains(h.PodCIDRs, k.dst)
	}
	_, found := slices.BinarySearchFunc(h.PeerCIDRs, k.dst, netip.Prefix.Compare)
	return found && k.metric == peerMetric(k.dst)
}

// sameRoutes says whether the routes that must hold are the same.
func (h *held) sameRoutes(o *held) bool {
	return h.tun == o.tun &&
		slices.Equal(h.Addresses, o.Addresses) &&
		slices.Equal(h.PodCIDRs, o.PodCIDRs) &&
		slices.Equal(h.ClusterCIDRs, o.ClusterCIDRs) &&
		slices.Equal(h.PeerCIDRs, o.PeerCIDRs) &&
		slices.Equal(h.PeerAddresses, o.PeerAddresses) &&
		maps.Equal(h.MTUs, o.MTUs)
}

// tables takes in messages of nftables; nil says that some were lost.
func (e *events) tables(messages []syscall.NetlinkMessage) {
	if messages == nil || slices.ContainsFunc(messages, isOfGuard) {
		e.guard.Store(true)
		e.signal()
	}
}

// isOfGuard says whether a message is about the guard table or the bridge table, which have one
// name, or something in them. Of
// whatever kind, the first kind of attribute is the table's name
// (include/uapi/linux/netfilter/nf_tables.h), but for that of a whole transaction, which is a number.
func isOfGuard(m syscall.NetlinkMessage) bool {
	if len(m.Data) < nl.SizeofNfgenmsg || m.Header.Type&0xff == unix.NFT_MSG_NEWGEN {
		return false
	}
	for kind, value := range rtnetlink.Attributes(m.Data[nl.SizeofNfgenmsg:]) {
		if kind == unix.NFTA_TABLE_NAME {
			return unix.ByteSliceToString(value) == marks.Table
		}
	}
	return false
}
