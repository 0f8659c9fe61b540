package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"weft/drop"
	"weft/fib"
	"weft/internal/status"
	"weft/packet"
	"weft/router"
)

// How many captured packets may wait for the client, and how many bytes of them. Lanes never wait.
const (
	captureRoom  = 4096
	captureBytes = 8 << 20
)

// capture is what `weft capture` asks for. One capture runs at a time: a lane copies a packet once.
func (d *daemon) capture(ctx context.Context, filter status.CaptureFilter, each func(status.CapturedPacket) error) error {
	p := d.path.Load()
	if p == nil {
		return fmt.Errorf("weftd does not forward yet: %w", d.Ready())
	}
	if filter.Peer != "" {
		if _, err := d.peerNamed(filter.Peer); err != nil {
			return err
		}
	}
	if !d.capturing.TryLock() {
		return errors.New("another `weft capture` runs; end it first")
	}
	defer d.capturing.Unlock()
	ctx, cancel := p.during(ctx)
	defer cancel()
	c := &router.Capture{Dropped: filter.Dropped, SnapLen: filter.SnapLen, Room: captureBytes, Packets: make(chan router.Captured, captureRoom)}
	c.Match = func(h packet.Header, parsed bool) bool { return matches(filter, p.router.Table(), h, parsed) }
	p.router.Capture(c)
	defer p.router.Capture(nil)
	if err := each(status.CapturedPacket{}); err != nil { // the capture runs
		return err
	}
	lost := uint64(0)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case captured := <-c.Packets:
			c.Taken(captured)
			packet := describeCaptured(captured)
			now := c.Lost.Load()
			packet.Lost, lost = now-lost, now
			if err := each(packet); err != nil {
				return err
			}
		}
	}
}

// matches says whether a filter allows a packet.
func matches(filter status.CaptureFilter, table *fib.Table, h packet.Header, parsed bool) bool {
	if len(filter.Hosts) == 0 && filter.Peer == "" {
		return true
	}
	if !parsed {
		return false
	}
	of := func(host netip.Prefix) bool { return host.Contains(h.Source) || host.Contains(h.Destination) }
	if len(filter.Hosts) > 0 && !slices.ContainsFunc(filter.Hosts, of) {
		return false
	}
	if filter.Peer == "" {
		return true
	}
	for _, addr := range []netip.Addr{h.Source, h.Destination} {
		if owner, ok := table.Lookup(addr); ok && owner.Name == filter.Peer {
			return true
		}
	}
	return false
}

func describeCaptured(c router.Captured) status.CapturedPacket {
	p := status.CapturedPacket{Time: byTheClock(c.Time), Lane: c.Lane, Direction: "inbound", Peer: c.Peer, Length: c.Length, SegmentSize: c.SegmentSize, Data: c.Data}
	if c.Outbound {
		p.Direction = "outbound"
	}
	if c.Reason != drop.None {
		p.Drop = c.Reason.String()
	}
	return p
}
