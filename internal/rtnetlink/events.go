package rtnetlink

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Events are the messages of multicast groups (netlink(7)), from Subscribe on.
type Events struct{ socket *nl.NetlinkSocket }

// eventBuffer holds the events that are not received yet: some thousand routes.
const eventBuffer = 4 << 20

// Subscribe joins groups of a netlink protocol, in the network namespace of the calling
// thread.
func Subscribe(protocol int, groups ...uint) (*Events, error) {
	socket, err := nl.Subscribe(protocol, groups...)
	if err == nil {
		// Without CAP_NET_ADMIN it stays smaller.
		_ = socket.SetReceiveBufferSize(eventBuffer, true)
		return &Events{socket}, nil
	}
	return nil, fmt.Errorf("subscribe to netlink's events: %w", err)
}

// SubscribeRouting is Subscribe to what routing depends on: links, addresses, routes and
// rules.
func SubscribeRouting() (*Events, error) {
	return Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE)
}

// Close ends a subscription that is not being received.
func (e *Events) Close() { e.socket.Close() }

// Receive calls f with messages as they come until ctx is done, and ends the subscription.
// It calls f with nil if some were lost.
func (e *Events) Receive(ctx context.Context, f func([]syscall.NetlinkMessage)) error {
	stop := context.AfterFunc(ctx, e.Close)
	defer func() {
		if stop() {
			e.Close()
		}
	}()
	for {
		messages, _, err := e.socket.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOBUFS):
			f(nil)
		case err != nil:
			return fmt.Errorf("receive netlink's events: %w", err)
		default:
			f(messages)
		}
	}
}

// Attributes yields the kinds and values of attributes (rtnetlink(7)), up to the first one
// that is cut short.
func Attributes(data []byte) iter.Seq2[uint16, []byte] {
	const header, align = 4, 4
	return func(yield func(uint16, []byte) bool) {
		for len(data) >= header {
			size := int(binary.NativeEndian.Uint16(data))
			kind := binary.NativeEndian.Uint16(data[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if size < header || size > len(data) || !yield(kind, data[header:size]) {
				return
			}
			data = data[min(len(data), (size+align-1)&^(align-1)):]
		}
	}
}
