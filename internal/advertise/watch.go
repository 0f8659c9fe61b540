package advertise

import (
	"context"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"weft/internal/marks"
	"weft/internal/rtnetlink"
)

// debounce is how long Watch waits for more of a change: most come as several events.
const debounce = 200 * time.Millisecond

// Watch calls changed whenever what Choose returns may have become another, in the network
// namespace of the calling thread, until ctx is done. It then returns nil.
//
// It calls changed once at the beginning, so that nothing is missed that happened after an
// earlier Choose. Later calls follow the first event of a change by 200 ms: never is one
// sooner after another, and never does a stream of events hold one back. Events of other
// things than addresses, links, routes and routing rules don't count, but most events of
// these don't change the choice: changed compares.
//
// Changed runs on the goroutine of the caller, and is not called again before it returned.
func Watch(ctx context.Context, changed func()) error {
	events, err := rtnetlink.SubscribeRouting()
	if err != nil {
		return err
	}
	some := make(chan struct{}, 1)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return events.Receive(ctx, func(messages []syscall.NetlinkMessage) {
			if messages != nil && !slices.ContainsFunc(messages, matters) {
				return
			}
			select {
			case some <- struct{}{}:
			default:
			}
		})
	})

	changed()
	var settled <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return group.Wait()
		case <-some:
			if settled == nil {
				settled = time.After(debounce)
			}
		case <-settled:
			settled = nil
			changed()
		}
	}
}

// matters says whether an event can change the choice. weft's own routes don't, and they are
// the most.
func matters(m syscall.NetlinkMessage) bool {
	route := m.Header.Type == unix.RTM_NEWROUTE || m.Header.Type == unix.RTM_DELROUTE
	return !route || len(m.Data) < unix.SizeofRtMsg || nl.DeserializeRtMsg(m.Data).Protocol != marks.RouteProtocol
}
