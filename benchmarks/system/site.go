package system

import (
	"context"
	"fmt"
	"net/netip"

	"weft/internal/testnet"
)

// The names of a node's links: its end of the wire, and that of its pod's veth pair where
// kernelNodes made it.
const (
	underlayLink = "eth0"
	hostLink     = "pod"
)

// The addresses of the two nodes and of what is behind them.
var (
	underlay    = [2]netip.Prefix{netip.MustParsePrefix("192.168.77.1/24"), netip.MustParsePrefix("192.168.77.2/24")}
	clusterCIDR = netip.MustParsePrefix("10.244.0.0/16")

	podCIDR = [2]netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("10.244.2.0/24")}
	gateway = [2]netip.Prefix{netip.MustParsePrefix("10.244.1.1/24"), netip.MustParsePrefix("10.244.2.1/24")}
	podAddr = [2]netip.Prefix{netip.MustParsePrefix("10.244.1.2/24"), netip.MustParsePrefix("10.244.2.2/24")}
)

// site is where a system is built.
type site struct {
	net      *testnet.Net
	programs Programs
	offloads testnet.Offloads
}

// wire joins the nodes. testnet fails when the kernel does not take the offloads.
func (s *site) wire(ctx context.Context, p *Path) error {
	var ends [2]testnet.End
	for i, n := range p.Nodes {
		ends[i] = testnet.End{Namespace: n, Link: underlayLink, Addrs: []netip.Prefix{underlay[i]}}
	}
	err := testnet.Connect(ctx, ends[0], ends[1], testnet.Wire{Offloads: s.offloads})
	for i, n := range p.Nodes {
		if err == nil {
			p.Features[i], err = n.Features(ctx, underlayLink)
		}
	}
	return err
}

// kernelNodes makes two nodes that forward by the kernel's routes, with a pod each.
// How packets get from node to node is left to the caller.
func (s *site) kernelNodes(ctx context.Context) (*Path, error) {
	p := new(Path)
	for i := range p.Nodes {
		var err error
		if p.Nodes[i], err = s.net.AddNamespace(ctx, fmt.Sprintf("node%d", i+1)); err != nil {
			return nil, err
		}
		// Nothing but what is measured must cross the wire: no neighbour discovery, no
		// multicast reports.
		if err := p.Nodes[i].Sysctl("net.ipv6.conf.default.disable_ipv6", "1"); err != nil {
			return nil, err
		}
		if p.Pods[i], err = s.addKernelPod(ctx, p.Nodes[i], i); err != nil {
			return nil, err
		}
		if err := p.Nodes[i].Sysctl("net.ipv4.ip_forward", "1"); err != nil {
			return nil, err
		}
	}
	return p, s.wire(ctx, p)
}

func (s *site) addKernelPod(ctx context.Context, node *testnet.Namespace, i int) (Pod, error) {
	ns, err := s.net.AddNamespace(ctx, fmt.Sprintf("pod%d", i+1))
	if err != nil {
		return Pod{}, err
	}
	err = testnet.Connect(ctx,
		testnet.End{Namespace: node, Link: hostLink, Addrs: []netip.Prefix{gateway[i]}},
		testnet.End{Namespace: ns, Link: testnet.PodLink, Addrs: []netip.Prefix{podAddr[i]}},
		testnet.Wire{MTU: InnerMTU})
	if err != nil {
		return Pod{}, err
	}
	everywhere := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	return Pod{Namespace: ns, Addr: podAddr[i].Addr()}, ns.AddRoute(everywhere, gateway[i].Addr())
}
