package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	core "k8s.io/api/core/v1"

	"weft/internal/testnet"
	"weft/kubernetes"
)

const nodeCount = 2

const topology = `
┌─────────────────────────┐  ┌─────────┐                   ┌─────────┐
│ apiserver               │  │ etcd1   │                   │ outside │
│ kube-apiserver          │  │ etcd    │                   └────┬────┘
│ kube-controller-manager │  └────┬────┘                        │
│ kube-scheduler          │       │                             │
└────────────┬────────────┘       │                             │  underlay
             │ .150               │ .101                        │ .254   192.168.77.0/24
─────────────┴──────┬─────────────┴────────────────────────┬────┴─────── fd00:77::/64
                    │ .1                                   │ .2
┌───────────────────┴───────────────┐  ┌───────────────────┴───────────────┐
│ node1                       weftd │  │ node2                       weftd │
│ containerd   kubelet   kube-proxy │  │ containerd   kubelet   kube-proxy │
│ pods in the CIDRs that it is      │  │ pods in the CIDRs that it is      │
│ given by Kubernetes               │  │ given by Kubernetes               │
└────┬─────────────────────────┬────┘  └────┬─────────────────────────┬────┘
  ┌──┴─┐                     ┌─┴──┐      ┌──┴─┐                     ┌─┴──┐
  │ a1 │                     │ b1 │      │ a2 │                     │ b2 │
  └────┘                     └────┘      └────┘                     └────┘
`

func (d *demo) drawTopology(context.Context) error {
	d.Block(topology)
	d.Gap()
	d.Note("Every box is a network namespace of this machine, nodes have processes and files of")
	d.Note("their own too. The underlay is a bridge that knows nothing of pods. Kubernetes' own")
	d.Note("programs run, and weft is the only network that the pods have.")
	return nil
}

func (d *demo) bringUp(ctx context.Context) error {
	if err := d.startControlPlane(ctx); err != nil {
		return err
	}
	err := d.Timed("kube-controller-manager, kube-scheduler; containerd, kubelet, kube-proxy", func() error {
		return d.Kubernetes.StartAll(ctx)
	})
	if err != nil {
		return err
	}
	for _, node := range d.Cluster.Nodes() {
		if err := d.awaitNotReady(ctx, node); err != nil {
			return err
		}
	}
	d.Gap()
	if err := d.kubectl(ctx, "get", "nodes"); err != nil {
		return err
	}
	d.Gap()
	return d.startWeft(ctx)
}

func (d *demo) startControlPlane(ctx context.Context) error {
	err := d.Timed(fmt.Sprintf("%d node namespaces on one segment, and the host outside", nodeCount), func() (err error) {
		d.PodNetwork, err = kubernetes.NewPodNetwork(ctx, d.Net, d.ClusterOptions(nodeCount, nil))
		return err
	})
	if err != nil {
		return err
	}
	err = d.Timed("etcd and kube-apiserver are ready", func() (err error) {
		options := testnet.APIServerOptions{BinDir: filepath.Join(d.Bin, "kubernetes")}
		d.Kubernetes, err = d.Net.AddKubernetes(ctx, d.Cluster, options)
		return err
	})
	if err != nil {
		return err
	}
	return d.Timed("deploy/kubernetes/rights is applied: weft's role and admission policy", func() error {
		return d.Permit(ctx, d.Kubernetes.APIServer, filepath.Join(d.root, "deploy", "kubernetes", "rights"))
	})
}

// awaitNotReady waits until Kubernetes has admitted a node, and kubelet has said that
// there is no pod network.
func (d *demo) awaitNotReady(ctx context.Context, n *testnet.Node) error {
	name := n.Entry().Name
	return d.Timed(name+" is admitted, and NotReady: “cni plugin not initialized”", func() error {
		if _, err := d.AwaitAdmitted(ctx, n); err != nil {
			return err
		}
		_, err := d.Admin.WaitNode(ctx, name, func(node *core.Node) error {
			switch err := kubernetes.NodeReady(node); {
			case err == nil:
				return errors.New("it is ready without a network")
			case !strings.Contains(err.Error(), "cni plugin not initialized"):
				return err
			}
			return nil
		})
		return err
	})
}

// startWeft starts the pod network, and waits for Kubernetes to take notice.
func (d *demo) startWeft(ctx context.Context) error {
	started := time.Now()
	for _, node := range d.Cluster.Nodes() {
		if err := d.StartNode(ctx, node, ""); err != nil {
			return err
		}
	}
	for i, node := range d.Cluster.Nodes() {
		other := d.Cluster.Nodes()[1-i].Entry().Name
		if err := d.awaitReady(ctx, node, other); err != nil {
			return err
		}
		d.Done(time.Since(started), "%s  is registered in its Node, has the peer %s, and is Ready", node.Entry().Name, other)
	}
	d.Note("The last times are since the first weftd was started.")
	return nil
}

// awaitReady waits until weft and Kubernetes have a node for ready.
func (d *demo) awaitReady(ctx context.Context, n *testnet.Node, peer string) error {
	_, err := d.AwaitRegistered(ctx, n)
	if err == nil {
		_, err = kubernetes.AwaitStatus(ctx, n, kubernetes.PeersAre(peer))
	}
	if err == nil {
		_, err = d.Admin.WaitNode(ctx, n.Entry().Name, kubernetes.NodeReady)
	}
	return d.Concerning(err, n)
}
