package advertise

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// settling is how long Watch waits for more of a change: most come as several events.
const settling = 200 * time.Millisecond

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
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
	if err != nil {
		return fmt.Errorf("subscribe to the events of rtnetlink: %w", err)
	}
	events := make(chan struct{}, 1)
	failed := make(chan error, 1)
	go func() {
		failed <- receive(socket, events)
		close(failed)
	}()
	defer func() {
		socket.Close()
		for range failed { // until it is closed: the goroutine has ended
		}
	}()

	changed()
	var settled <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("receive the events of rtnetlink: %w", err)
		case <-events:
			if settled == nil {
				settled = time.After(settling)
			}
		case <-settled:
			settled = nil
			changed()
		}
	}
}

// receive notes in events that there were some, until the socket is closed.
func receive(socket *nl.NetlinkSocket, events chan<- struct{}) error {
	for {
		// ENOBUFS says that events were lost (netlink(7)): there were some.
		_, _, err := socket.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case events <- struct{}{}:
		default:
		}
	}
}
