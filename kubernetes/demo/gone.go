package main

import (
	"context"
	"fmt"
	"net/netip"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/internal/stage"
	"weft/internal/testnet"
	"weft/kubernetes"
)

// deleteNode takes node2 out of Kubernetes, and has it back.
func (d *demo) deleteNode(ctx context.Context) error {
	node1, node2 := d.Node(1), d.Node(2)
	cidrs, err := d.PodCIDRs(ctx, node2)
	if err != nil {
		return err
	}
	if err := mustHaveRoutes(ctx, node1, cidrs); err != nil {
		return d.Concerning(err, node1)
	}
	d.OK("node1 has routes to the pods of node2, %s", testnet.Join(cidrs, " and "))
	kubelet := d.Kubernetes.Nodes[1].Kubelet
	err = d.Timed("node2 is drained, and its kubelet stopped", func() error {
		if err := d.Drain(ctx, "node2"); err != nil {
			return err
		}
		return kubelet.Stop(ctx)
	})
	if err != nil {
		return err
	}
	if err := d.Admin.CoreV1().Nodes().Delete(ctx, "node2", meta.DeleteOptions{}); err != nil {
		return err
	}
	err = d.Timed("its Node is deleted: for node1 it is no peer, and routes there are gone", func() error {
		if _, err := kubernetes.AwaitStatus(ctx, node1, kubernetes.PeersAre()); err != nil {
			return err
		}
		return kubernetes.AwaitNoRoutes(ctx, node1, cidrs)
	})
	if err != nil {
		return d.Concerning(err, node1)
	}
	return d.rejoin(ctx, kubelet)
}

func mustHaveRoutes(ctx context.Context, n *testnet.Node, to []netip.Prefix) error {
	found, err := kubernetes.Routes(ctx, n, to)
	if err == nil && len(found) != len(to) {
		err = fmt.Errorf("%s has routes to %v only, want %v", n.Entry().Name, found, to)
	}
	return err
}

// rejoin starts kubelet on node2 again, which makes its Node anew.
func (d *demo) rejoin(ctx context.Context, kubelet *testnet.Service) error {
	node1, node2 := d.Node(1), d.Node(2)
	err := d.Timed("kubelet of node2 is started again, and its Node admitted", func() error {
		if err := kubelet.Start(ctx); err != nil {
			return err
		}
		_, err := d.AwaitAdmitted(ctx, node2)
		return err
	})
	if err != nil {
		return err
	}
	cidrs, err := d.PodCIDRs(ctx, node2)
	if err != nil {
		return err
	}
	err = d.Timed("weftd is restarted with a token of the new Node: registered, and Ready", func() error {
		if err := node2.Restart(ctx); err != nil {
			return err
		}
		return d.awaitReady(ctx, node2, "node1")
	})
	if err != nil {
		return err
	}
	if _, err := kubernetes.AwaitStatus(ctx, node1, kubernetes.PeersAre("node2")); err != nil {
		return d.Concerning(err)
	}
	if err := mustHaveRoutes(ctx, node1, cidrs); err != nil {
		return d.Concerning(err, node1)
	}
	d.OK("node1 has routes to its pods again, %s", testnet.Join(cidrs, " and "))
	return d.spreadAgain(ctx)
}

// spreadAgain has the Deployment make its pods anew: all had to be on node1.
func (d *demo) spreadAgain(ctx context.Context) error {
	err := d.Timed("all pods of the Deployment are deleted; new ones are ready on both nodes", func() error {
		selector := meta.ListOptions{LabelSelector: "app=" + spread}
		if err := d.Admin.CoreV1().Pods(spread).DeleteCollection(ctx, meta.DeleteOptions{}, selector); err != nil {
			return err
		}
		return d.findPods(ctx)
	})
	if err == nil && len(d.on(d.Node(2))) == 0 {
		err = fmt.Errorf("no pod is on node2")
	}
	if err != nil {
		return d.Concerning(err)
	}
	everyone := places(d.pods, d.hosts)
	probes := stage.Cross(everyone, everyone)
	return d.Timed(fmt.Sprintf("all reach each other as before: %d probes", len(probes)), func() error {
		return d.ProbeAll(ctx, probes)
	})
}
