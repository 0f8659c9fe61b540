package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"weft/internal/testnet"
)

const topology = `
                            ┌────────────────────────────┐
                            │ outside                    │
                            │ 198.51.100.1   2001:db8::1 │
                            └─────────────┬──────────────┘
underlay 192.168.77.0/24  fd00:77::/64    │ .254
─────────────┬────────────────────────────┼────────────────────────────┬─────────────
             │ .1                         │ .2                         │ .3
┌────────────┴────────────┐  ┌────────────┴────────────┐  ┌────────────┴────────────┐
│ node1             weftd │  │ node2             weftd │  │ node3             weftd │
│ pods in 10.244.1.0/24   │  │ pods in 10.244.2.0/24   │  │ pods in 10.244.3.0/24   │
│         fd00:244:1::/64 │  │         fd00:244:2::/64 │  │         fd00:244:3::/64 │
└────┬───────────────┬────┘  └────┬───────────────┬────┘  └────┬───────────────┬────┘
  ┌──┴─┐           ┌─┴──┐      ┌──┴─┐           ┌─┴──┐      ┌──┴─┐           ┌─┴──┐
  │ a1 │           │ b1 │      │ a2 │           │ b2 │      │ a3 │           │ b3 │
  └────┘           └────┘      └────┘           └────┘      └────┘           └────┘
`

// claims says of a node in the topology that its pod CIDRs are not known beforehand.
var claims = strings.NewReplacer(
	"│ pods in 10.244.1.0/24   │", "│ pods in the CIDRs that  │", "│         fd00:244:1::/64 │", "│ it claims in etcd       │",
	"│ pods in 10.244.2.0/24   │", "│ pods in the CIDRs that  │", "│         fd00:244:2::/64 │", "│ it claims in etcd       │",
	"│ pods in 10.244.3.0/24   │", "│ pods in the CIDRs that  │", "│         fd00:244:3::/64 │", "│ it claims in etcd       │",
)

func (d *demo) drawTopology(context.Context) error {
	picture := topology
	if d.inEtcd() {
		// What they get is up to etcd.
		picture = claims.Replace(picture)
	}
	d.Block(picture)
	d.Gap()
	d.Note("Every box is a network namespace of this machine. The underlay is a bridge that")
	d.Note("knows nothing of pods; the host outside has no route to them.")
	return nil
}

func (d *demo) bringUp(ctx context.Context) error {
	err := d.Timed(fmt.Sprintf("%d node namespaces on one segment, and the host outside", nodeCount), func() (err error) {
		d.cluster, err = d.Net.NewCluster(ctx, d.ClusterOptions(nodeCount, d.configure))
		if err != nil {
			return err
		}
		return d.servers.start(ctx, d.cluster.Outside)
	})
	if err != nil {
		return err
	}
	if d.inEtcd() {
		err := d.Timed("etcd: three members with TLS, each in a namespace on the segment", func() (err error) {
			d.etcd, err = d.Net.AddEtcd(ctx, d.cluster.Segment, testnet.EtcdOptions{Members: 3, TLS: true})
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, node := range d.cluster.Nodes() {
		if err := d.startNode(ctx, node); err != nil {
			return err
		}
	}
	for i, node := range d.cluster.Nodes() {
		if err := d.addPods(ctx, node, i+1); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) configure(weft map[string]any) {
	if d.etcd != nil { // the file is written again when weftd starts
		weft["control"] = d.etcd.MustControl(weft["node"].(string))
	}
}

func (d *demo) startNode(ctx context.Context, node *testnet.Node) error {
	remark := ""
	if d.inEtcd() {
		remark = ", registered in etcd"
	}
	if err := d.StartNode(ctx, node, remark); err != nil {
		return err
	}
	return d.servers.start(ctx, node.Namespace)
}

// addPods adds the pods aN, bN, … to node N.
func (d *demo) addPods(ctx context.Context, node *testnet.Node, number int) error {
	for i := range podsPerNode {
		pod, err := d.addPod(ctx, node, fmt.Sprintf("%c%d", 'a'+i, number))
		if err != nil {
			return err
		}
		d.pods = append(d.pods, pod)
	}
	return nil
}

func (d *demo) addPod(ctx context.Context, node *testnet.Node, name string) (*testnet.Pod, error) {
	started := time.Now()
	pod, err := node.AddPod(ctx, name)
	if err != nil {
		return nil, d.Concerning(err, node)
	}
	d.Done(time.Since(started), "pod %s on %s  %s", name, node.Entry().Name, testnet.Join(pod.Addrs, "  "))
	return pod, d.servers.start(ctx, pod.Namespace)
}
