package main

import (
	"fmt"
	"iter"
	"net"
	"net/netip"
	"strings"

	core "k8s.io/api/core/v1"

	"weft/internal/stage"
	"weft/internal/testnet"
)

// place is a pod with a web server, where a probe starts or ends.
type place struct {
	name string
	pod  core.Pod

	// addrs are where others reach it, one in each family, and port its server's.
	addrs []netip.Addr
	port  string

	// seenAs are the addresses as which others must see it.
	seenAs []netip.Addr
}

// podPlace describes a pod with an address of its own.
func podPlace(pod core.Pod, name string) place {
	p := place{name: name, pod: pod, port: "80"}
	for _, ip := range pod.Status.PodIPs {
		p.addrs = append(p.addrs, netip.MustParseAddr(ip.IP))
	}
	p.seenAs = p.addrs
	return p
}

// hostPlace describes a pod in its node's own network. Others reach that at the node's
// endpoint, and in the other family by its address in the overlay: the first one of its
// pod CIDR, from which it speaks to pods.
func hostPlace(pod core.Pod, n *testnet.Node, podCIDRs []netip.Prefix) place {
	p := place{name: n.Entry().Name, pod: pod, port: "8080", addrs: []netip.Addr{n.Entry().Endpoint.Addr()}}
	for _, cidr := range podCIDRs {
		p.seenAs = append(p.seenAs, cidr.Addr().Next())
	}
	p.addrs = append(p.addrs, p.seenAs...)
	return p
}

// isPod says whether the place is a pod with an address of its own.
func (p place) isPod() bool { return !p.pod.Spec.HostNetwork }

// server is where its web server is.
func (p place) server(f stage.Family) string { return net.JoinHostPort(f.Of(p.addrs).String(), p.port) }

func join[T fmt.Stringer](items []T, separator string) string {
	var texts []string
	for _, item := range items {
		texts = append(texts, item.String())
	}
	return strings.Join(texts, separator)
}

func filter[T any](items []T, is func(T) bool) iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, item := range items {
			if is(item) && !yield(item) {
				return
			}
		}
	}
}

func byName(a, b core.Pod) int { return strings.Compare(a.Name, b.Name) }
