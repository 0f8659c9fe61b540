package testnet

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"weft/internal/family"
)

// The addresses of a Cluster. Node N has the host part N on the underlay and the
// pod CIDRs 10.244.N.0/24 and fd00:244:N::/64.
var (
	OutsideUnderlay4 = netip.MustParseAddr("192.168.77.254")
	OutsideUnderlay6 = netip.MustParseAddr("fd00:77::fe")

	// OutsideAddr4 and OutsideAddr6 are an Internet host's, behind the segment's
	// router: documentation addresses (RFC 5737, RFC 3849).
	OutsideAddr4 = netip.MustParseAddr("198.51.100.1")
	OutsideAddr6 = netip.MustParseAddr("2001:db8::1")

	clusterCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/32")}
)

const (
	// UnderlayLink is the name of a node's link to the segment.
	UnderlayLink = "eth0"

	weftPort = 9338

	// mostNodes is the last number before the outside's.
	mostNodes = 253
)

// ClusterOptions describe a Cluster.
type ClusterOptions struct {
	Nodes int
	Wire  Wire

	// Underlay6 has the nodes speak to each other over IPv6.
	Underlay6 bool

	// Sealed has the nodes encrypt what they send to each other.
	Sealed bool

	// Configure may change the weft.yaml of each node.
	Configure func(weft map[string]any)
}

// Cluster is the ordinary topology: dual-stack nodes on one segment, and the host
// outside as their router.
type Cluster struct {
	Segment *Segment

	// Outside knows no route to the pods: it answers to the nodes' addresses only.
	Outside *Namespace

	net     *Net
	options ClusterOptions

	mu    sync.Mutex
	nodes []*Node
}

// NewCluster builds a cluster and starts nothing in it.
func (n *Net) NewCluster(ctx context.Context, o ClusterOptions) (*Cluster, error) {
	segment, err := n.AddSegment(ctx, "segment", o.Wire)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Segment: segment, net: n, options: o}
	if err := c.addOutside(ctx); err != nil {
		return nil, fmt.Errorf("add the host outside: %w", err)
	}
	for range o.Nodes {
		if _, err := c.AddNode(ctx); err != nil {
			return nil, err
		}
	}
	return c, c.Publish()
}

func (c *Cluster) addOutside(ctx context.Context) (err error) {
	if c.Outside, err = c.net.AddNamespace(ctx, "outside"); err != nil {
		return err
	}
	internet := []netip.Prefix{netip.PrefixFrom(OutsideAddr4, 32), netip.PrefixFrom(OutsideAddr6, 128)}
	if err := c.Outside.configure("lo", internet); err != nil {
		return err
	}
	return c.Segment.Attach(ctx, End{Namespace: c.Outside, Link: UnderlayLink, Addrs: []netip.Prefix{
		netip.PrefixFrom(OutsideUnderlay4, 24), netip.PrefixFrom(OutsideUnderlay6, 64),
	}})
}

// AddNode adds the next node to the segment. The others learn of it by Publish.
func (c *Cluster) AddNode(ctx context.Context) (*Node, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	number := len(c.nodes) + 1
	if number > mostNodes {
		return nil, fmt.Errorf("add node %d: a cluster has at most %d", number, mostNodes)
	}
	addr4 := netip.MustParseAddr(fmt.Sprintf("192.168.77.%d", number))
	addr6 := netip.MustParseAddr(fmt.Sprintf("fd00:77::%d", number))
	endpoint := addr4
	if c.options.Underlay6 {
		endpoint = addr6
	}
	node, err := c.net.AddNode(ctx, NodeOptions{
		NodeEntry: NodeEntry{
			Name:     fmt.Sprintf("node%d", number),
			Endpoint: netip.AddrPortFrom(endpoint, weftPort),
			PodCIDRs: []netip.Prefix{
				netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", number)),
				netip.MustParsePrefix(fmt.Sprintf("fd00:244:%d::/64", number)),
			},
		},
		ClusterCIDRs: clusterCIDRs,
		Sealed:       c.options.Sealed,
		Configure:    c.options.Configure,
	})
	if err != nil {
		return nil, err
	}
	addrs := []netip.Prefix{netip.PrefixFrom(addr4, 24), netip.PrefixFrom(addr6, 64)}
	if err := c.Segment.Attach(ctx, End{Namespace: node.Namespace, Link: UnderlayLink, Addrs: addrs}); err != nil {
		return nil, err
	}
	for _, gateway := range []netip.Addr{OutsideUnderlay4, OutsideUnderlay6} {
		if err := node.AddRoute(everywhere(gateway), gateway); err != nil {
			return nil, err
		}
	}
	c.nodes = append(c.nodes, node)
	return node, nil
}

// everywhere is the prefix of a default route in the family of addr.
func everywhere(addr netip.Addr) netip.Prefix {
	return netip.PrefixFrom(family.Of(addr).Unspecified(), 0)
}

// Nodes returns the nodes in the order of their numbers.
func (c *Cluster) Nodes() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.nodes)
}

// Publish writes the nodes.yaml of every node: the same list of all nodes.
func (c *Cluster) Publish() error {
	nodes := c.Nodes()
	var entries []NodeEntry
	for _, n := range nodes {
		entries = append(entries, n.Entry())
	}
	for _, n := range nodes {
		if err := n.SetNodes(entries); err != nil {
			return err
		}
	}
	return nil
}

// Start starts weftd on all nodes at once, and returns when all are ready.
func (c *Cluster) Start(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, n := range c.Nodes() {
		group.Go(func() error { return n.Start(ctx) })
	}
	return group.Wait()
}
