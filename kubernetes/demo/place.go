package main

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"path/filepath"
	"strings"

	core "k8s.io/api/core/v1"

	"weft/internal/stage"
	"weft/internal/testnet"
)

// webPod is a pod with a web server.
type webPod struct {
	*stage.Place
	pod core.Pod

	// run runs a program in the pod, and returns what that prints.
	run run
}

type run func(ctx context.Context, command ...string) (string, error)

// podPlace is one with addresses of its own.
func (d *demo) podPlace(pod core.Pod, n *testnet.Node, name string) *webPod {
	s := d.webPod(pod, n, name, "80")
	for _, ip := range pod.Status.PodIPs {
		s.Addrs = append(s.Addrs, netip.MustParseAddr(ip.IP))
	}
	s.Pod, s.Inside = true, s.Addrs
	return s
}

// hostPlace is one in its node's own network. Others reach that at the node's endpoint,
// and in the other family by its address in the overlay: the first one of its pod CIDR,
// from which it speaks to pods.
func (d *demo) hostPlace(pod core.Pod, n *testnet.Node, podCIDRs []netip.Prefix) *webPod {
	s := d.webPod(pod, n, n.Entry().Name, "8080")
	for _, cidr := range podCIDRs {
		s.Inside = append(s.Inside, cidr.Addr().Next())
	}
	s.Addrs = append([]netip.Addr{n.Entry().Endpoint.Addr()}, s.Inside...)
	return s
}

func (d *demo) webPod(pod core.Pod, n *testnet.Node, name, port string) *webPod {
	s := &webPod{pod: pod, run: func(ctx context.Context, command ...string) (string, error) {
		return d.Admin.Exec(ctx, pod.Namespace, pod.Name, command...) // as `kubectl exec` does
	}}
	s.Place = &stage.Place{Name: name, Node: n, Port: port, Ask: s.ask}
	if !pod.Spec.HostNetwork { // there, it is the machine's
		s.HostName = pod.Name
	}
	return s
}

// places are those of pods.
func places(pods ...[]*webPod) (all []*stage.Place) {
	for _, some := range pods {
		for _, s := range some {
			all = append(all, s.Place)
		}
	}
	return all
}

func (d *demo) showReachability(ctx context.Context) error {
	err := d.Timed(fmt.Sprintf("a Deployment of %d pods, and a pod in each node's own network, are ready", replicas), func() error {
		if err := d.Admin.Apply(ctx, filepath.Join(d.root, "kubernetes", "testdata", spread)); err != nil {
			return err
		}
		return d.Concerning(d.findPods(ctx))
	})
	if err != nil {
		return err
	}
	d.Gap()
	d.Line("%s", d.Paint(stage.Bold, "pod  on     addresses                               its name in Kubernetes"))
	for _, p := range d.pods {
		d.Line("%-4s %-6s %-39s %s", p.Name, p.Node.Entry().Name, testnet.Join(p.Addrs, "  "), p.pod.Name)
	}
	d.Gap()
	everyone := places(d.pods, d.hosts)
	probes, err := d.ShowReachability(ctx, everyone, everyone, "an HTTP exchange and five pings")
	if err != nil {
		return err
	}
	d.Gap()
	d.ShowSources(d.pods[0].Place, probes)
	return nil
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
