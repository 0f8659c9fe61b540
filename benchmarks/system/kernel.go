package system

import (
	"context"
	"errors"
	"fmt"

	"weft/internal/testnet"
	"weft/peer"
)

// connectDirect has the nodes route pods' packets over the wire as they are: what
// the machine can do without any overlay.
func connectDirect(ctx context.Context, s *site) (*Path, error) {
	p, err := s.kernelNodes(ctx)
	if err != nil {
		return nil, err
	}
	p.device = underlayLink
	for i, n := range p.Nodes {
		if err := n.AddRoute(podCIDR[1-i], underlay[1-i].Addr()); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// connectKernelVXLAN has the kernel's VXLAN device carry them, wired as flannel does
// it: static neighbours and forwarding entries, no learning, routes over the device.
// Outer UDP checksums are on, which is the kernel's default.
func connectKernelVXLAN(ctx context.Context, s *site) (*Path, error) {
	p, err := s.kernelNodes(ctx)
	if err != nil {
		return nil, err
	}
	p.device = "vxlan1"
	for i, n := range p.Nodes {
		other := 1 - i
		mac, peerMAC := peer.DeriveMAC(fmt.Sprint("node", i)), peer.DeriveMAC(fmt.Sprint("node", other))
		err := n.ExecAll(ctx,
			fmt.Sprintf("ip link add vxlan1 address %s mtu %d type vxlan id 1 dstport 4789 local %s nolearning", mac, InnerMTU, underlay[i].Addr()),
			"ip link set vxlan1 up",
			fmt.Sprintf("bridge fdb add %s dev vxlan1 dst %s", peerMAC, underlay[other].Addr()),
			fmt.Sprintf("ip neigh add %s lladdr %s dev vxlan1", gateway[other].Addr(), peerMAC),
			fmt.Sprintf("ip route add %s via %s dev vxlan1 onlink", podCIDR[other], gateway[other].Addr()))
		if err != nil {
			return nil, err
		}
	}
	return p, nil
}

// groFeatures merge what a pod sends into super-packets, UDP too, before the node routes it.
var groFeatures = []string{"generic-receive-offload", "rx-udp-gro-forwarding"}

// connectKernelVXLANWithGRO is the kernel's VXLAN with GRO on the host's side of the pods' veth
// pairs, where it is off by default. An overlay that turns it on compares with this one: part
// of its gain is the kernel's.
func connectKernelVXLANWithGRO(ctx context.Context, s *site) (*Path, error) {
	p, err := connectKernelVXLAN(ctx, s)
	if err != nil {
		return nil, err
	}
	for _, n := range p.Nodes {
		if err := n.ExecAll(ctx, fmt.Sprintf("ethtool -K %s %s on %s on", hostLink, groFeatures[0], groFeatures[1])); err != nil {
			return nil, err
		}
	}
	p.verify = func(ctx context.Context, _ Counters) error {
		return errors.Join(verifyGRO(ctx, p.Nodes[0]), verifyGRO(ctx, p.Nodes[1]))
	}
	return p, nil
}

func verifyGRO(ctx context.Context, n *testnet.Namespace) error {
	features, err := n.Features(ctx, hostLink)
	for _, name := range groFeatures {
		if err == nil && !features[name] {
			err = fmt.Errorf("%s of %s in %s is off", name, hostLink, n.Name())
		}
	}
	return err
}
