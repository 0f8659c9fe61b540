package testnet

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/vishvananda/netlink"
)

// Segment is an underlay network: a bridge in a namespace of its own.
type Segment struct {
	*Namespace
	wire  Wire
	ports atomic.Int32
}

const bridgeName = "br0"

// AddSegment makes a segment whose cables are all of one kind.
func (n *Net) AddSegment(ctx context.Context, name string, w Wire) (*Segment, error) {
	ns, err := n.AddNamespace(ctx, name)
	if err != nil {
		return nil, err
	}
	// Without a querier on the segment, snooping would hold multicast back for a
	// while after a port joined, and IPv6 neighbour discovery with it.
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs(), MulticastSnooping: &snooping}
	bridge.Name = bridgeName
	err = ns.withNetlink(func(h *netlink.Handle) error { return h.LinkAdd(bridge) })
	if err != nil {
		return nil, fmt.Errorf("add segment %s: %w", name, err)
	}
	if err := ns.configure(bridgeName, nil); err != nil {
		return nil, fmt.Errorf("add segment %s: %w", name, err)
	}
	return &Segment{Namespace: ns, wire: w}, nil
}

// Attach connects a namespace to the segment.
func (s *Segment) Attach(ctx context.Context, e End) error {
	_, err := s.attach(ctx, e)
	return err
}

// attach is Attach, and returns the name of the segment's end of the cable.
func (s *Segment) attach(ctx context.Context, e End) (port string, err error) {
	port = fmt.Sprintf("port%d", s.ports.Add(1))
	if err := Connect(ctx, e, End{Namespace: s.Namespace, Link: port}, s.wire); err != nil {
		return "", err
	}
	return port, s.withLink(port, func(h *netlink.Handle, l netlink.Link) error {
		bridge, err := h.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		return h.LinkSetMaster(l, bridge)
	})
}
