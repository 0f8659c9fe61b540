package main

import (
	"context"
	"net/netip"
	"slices"

	"weft/internal/stage"
	"weft/internal/testnet"
)

// place is one with a server of the demo's in its namespace.
func place(name string, ns *testnet.Namespace) *stage.Place {
	return &stage.Place{Name: name, Port: probePort, Ask: func(ctx context.Context, probes []*stage.Probe) {
		for _, p := range probes {
			p.Took, p.SeenAs, p.Err = probe(ctx, ns, p.To.Server(p.Family))
		}
	}}
}

func (d *demo) outsidePlace() *stage.Place {
	p := place("outside", d.cluster.Outside)
	p.Addrs = []netip.Addr{testnet.OutsideAddr4, testnet.OutsideAddr6}
	return p
}

// nodePlace describes a node. Pods reach it by its endpoint's address, and in the
// other family by its address in the overlay.
func nodePlace(n *testnet.Node) (*stage.Place, error) {
	overlay, err := n.Addrs(testnet.TUNName)
	if err != nil {
		return nil, err
	}
	underlay, err := n.Addrs(testnet.UnderlayLink)
	if err != nil {
		return nil, err
	}
	p := place(n.Entry().Name, n.Namespace)
	p.Node, p.Addrs = n, append([]netip.Addr{n.Entry().Endpoint.Addr()}, overlay...)
	p.Inside, p.Outside = slices.Concat(underlay, overlay), underlay
	return p, nil
}

// podPlace describes a pod. Only outside it is seen by another address than its own:
// by its node's.
func podPlace(pod *testnet.Pod) (*stage.Place, error) {
	underlay, err := pod.Node.Addrs(testnet.UnderlayLink)
	if err != nil {
		return nil, err
	}
	p := place(pod.PodName, pod.Namespace)
	p.Node, p.Pod, p.Addrs = pod.Node, true, pod.Addrs
	p.Inside, p.Outside = pod.Addrs, underlay
	return p, nil
}

// places describes the pods and the nodes as they are now.
func (d *demo) places() (pods, nodes []*stage.Place, err error) {
	for _, pod := range d.pods {
		p, err := podPlace(pod)
		if err != nil {
			return nil, nil, err
		}
		pods = append(pods, p)
	}
	for _, node := range d.cluster.Nodes() {
		p, err := nodePlace(node)
		if err != nil {
			return nil, nil, err
		}
		nodes = append(nodes, p)
	}
	return pods, nodes, nil
}

func (d *demo) showReachability(ctx context.Context) error {
	pods, nodes, err := d.places()
	if err != nil {
		return err
	}
	from := slices.Concat(pods, nodes)
	d.probes, err = d.ShowReachability(ctx, from, append(slices.Clone(from), d.outsidePlace()), "a TCP connection")
	return err
}

// showSourceAddresses prints as whom servers everywhere have seen one pod.
func (d *demo) showSourceAddresses(context.Context) error {
	d.ShowSources(d.probes[0].From, d.probes)
	return nil
}
