package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"weft/internal/testnet"
)

// place is where a probe starts or ends.
type place struct {
	name string
	ns   *testnet.Namespace

	// node is where it is; nil for the host outside.
	node *testnet.Node
	pod  bool

	// addrs are where others reach it: at most one in each family.
	addrs []netip.Addr

	// inside are the addresses as which pods and nodes may see it, outside those as
	// which the host outside may.
	inside, outside []netip.Addr
}

func (d *demo) outsidePlace() place {
	addrs := []netip.Addr{testnet.OutsideAddr4, testnet.OutsideAddr6}
	return place{name: "outside", ns: d.cluster.Outside, addrs: addrs}
}

// nodePlace describes a node. Pods reach it by its endpoint's address, and in the
// other family by its address in the overlay.
func nodePlace(n *testnet.Node) (place, error) {
	overlay, err := n.Addrs(testnet.TUNName)
	if err != nil {
		return place{}, err
	}
	underlay, err := n.Addrs(testnet.UnderlayLink)
	if err != nil {
		return place{}, err
	}
	endpoint := n.Entry().Endpoint.Addr()
	return place{
		name: n.Entry().Name, ns: n.Namespace, node: n,
		addrs:   append([]netip.Addr{endpoint}, overlay...),
		inside:  slices.Concat(underlay, overlay),
		outside: underlay,
	}, nil
}

// podPlace describes a pod. Only outside it is seen by another address than its own:
// by its node's.
func podPlace(p *testnet.Pod) (place, error) {
	underlay, err := p.Node.Addrs(testnet.UnderlayLink)
	if err != nil {
		return place{}, err
	}
	return place{
		name: p.PodName, ns: p.Namespace, node: p.Node, pod: true,
		addrs: p.Addrs, inside: p.Addrs, outside: underlay,
	}, nil
}

// places describes the pods and the nodes as they are now.
func (d *demo) places() (pods, nodes []place, err error) {
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

// seenBy returns the addresses as which to may see a client at p.
func (p place) seenBy(to place) []netip.Addr {
	if to.node == nil {
		return p.outside
	}
	return p.inside
}

func join[T fmt.Stringer](items []T, separator string) string {
	var texts []string
	for _, item := range items {
		texts = append(texts, item.String())
	}
	return strings.Join(texts, separator)
}
