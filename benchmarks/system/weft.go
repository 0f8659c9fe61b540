package system

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"weft/internal/status"
	"weft/internal/testnet"
	"weft/router/tun"
)

// weft is weft with one encapsulation and one TUN driver.
type weft struct {
	sealed bool
	driver string
}

func (w weft) encapsulation() string {
	if w.sealed {
		return "sealed"
	}
	return "vxlan"
}

// mustRise are weftd's counters that a TCP transfer raises if the data path is the one
// that is meant. A driver that can fall back to slower ways without failing has
// a counter for that.
var mustRise = []struct {
	counter string
	driver  string // empty: every one
}{
	{counter: `weft_packets_total{direction="outbound"}`},
	{counter: `weft_packets_total{direction="inbound"}`},
	{counter: `weft_superpackets_total{direction="outbound"}`, driver: "superpacket"},
	{counter: `weft_superpackets_total{direction="inbound"}`, driver: "superpacket"},
	{counter: `weft_udp_gro_datagrams_total`, driver: "superpacket"},
}

// weftSystems is weft with every driver that there is.
func weftSystems() []System {
	var systems []System
	for _, driver := range tun.Drivers() {
		w := weft{driver: driver}
		systems = append(systems, System{Name: WeftVXLAN(driver), connect: w.connect})
	}
	// The drivers compare alike with both: one is enough.
	w := weft{sealed: true, driver: installedDriver}
	return append(systems, System{Name: WeftSealed, Encrypted: true, connect: w.connect})
}

// Before is weft as Programs.Before has it: two versions are compared in one run, since the
// machine is not the same in another. An older weftd refuses a key in its configuration that
// it does not know; Configure, in addNodes, must then leave it out.
func Before() []System {
	plain, sealed := weft{driver: installedDriver}, weft{sealed: true, driver: installedDriver}
	return []System{
		{Name: beforeVXLAN, before: true, connect: plain.connect},
		{Name: beforeSealed, before: true, Encrypted: true, connect: sealed.connect},
	}
}

// WeftSealed is the name of the system of weft as it is installed.
const (
	WeftSealed      = "weft-sealed/" + installedDriver
	installedDriver = "superpacket"

	beforeVXLAN  = "before-vxlan"
	beforeSealed = "before-sealed"
)

// WeftVXLAN is the name of the system of weft with VXLAN and a TUN driver.
func WeftVXLAN(driver string) string { return "weft-vxlan/" + driver }

const weftPort = 9338

// connect has weftd forward, and weft-cni wire the pods, as a cluster would.
func (w weft) connect(ctx context.Context, s *site) (*Path, error) {
	nodes, err := w.addNodes(ctx, s)
	if err != nil {
		return nil, err
	}
	p := &Path{device: testnet.TUNName}
	for i, n := range nodes {
		p.Nodes[i] = n.Namespace
	}
	if err := s.wire(ctx, p); err != nil {
		return nil, err
	}
	for i, n := range nodes {
		if err := n.SetNodes([]testnet.NodeEntry{nodes[0].Entry(), nodes[1].Entry()}); err != nil {
			return nil, err
		}
		if err := n.Start(ctx); err != nil {
			return nil, err
		}
		pod, err := n.AddPod(ctx, fmt.Sprintf("pod%d", i+1))
		if err != nil {
			return nil, err
		}
		addr, ok := pod.Addr(false)
		if !ok {
			return nil, fmt.Errorf("the pod of node%d has no IPv4 address", i+1)
		}
		p.Pods[i] = Pod{Namespace: pod.Namespace, Addr: addr}
	}
	p.verify = func(ctx context.Context, seen Counters) error { return w.verify(ctx, nodes, seen) }
	p.counters = func(ctx context.Context, to Counters) error { return addMetrics(ctx, nodes, to) }
	return p, nil
}

func (w weft) addNodes(ctx context.Context, s *site) (nodes [2]*testnet.Node, err error) {
	for i := range nodes {
		nodes[i], err = s.net.AddNode(ctx, testnet.NodeOptions{
			NodeEntry: testnet.NodeEntry{
				Name:     fmt.Sprintf("node%d", i+1),
				Endpoint: netip.AddrPortFrom(underlay[i].Addr(), weftPort),
				PodCIDRs: []netip.Prefix{podCIDR[i]},
			},
			ClusterCIDRs: []netip.Prefix{clusterCIDR},
			Sealed:       w.sealed,
			Configure: func(config map[string]any) {
				config["tun"] = map[string]any{"name": testnet.TUNName, "driver": w.driver, "mtu": InnerMTU}
			},
		})
		if err != nil {
			return nodes, err
		}
	}
	return nodes, nil
}

// verify asks the daemons what they run, and looks whether their counters agree.
func (w weft) verify(ctx context.Context, nodes [2]*testnet.Node, seen Counters) error {
	var errs []error
	for _, n := range nodes {
		r, err := status.Fetch(ctx, n.Socket())
		if err != nil {
			return err
		}
		if r.Encapsulation != w.encapsulation() || r.TUN.Driver != w.driver || r.TUN.MTU != InnerMTU {
			errs = append(errs, fmt.Errorf("weftd on %s runs %s with the driver %s and MTU %d; want %s, %s and %d",
				n.Entry().Name, r.Encapsulation, r.TUN.Driver, r.TUN.MTU, w.encapsulation(), w.driver, InnerMTU))
		}
	}
	for _, must := range mustRise {
		if concerned := must.driver == "" || must.driver == w.driver; concerned && seen[must.counter] == 0 {
			errs = append(errs, fmt.Errorf("pods talk, but weftd's %s does not rise: is the driver %s really in use?", must.counter, w.driver))
		}
	}
	return errors.Join(errs...)
}
