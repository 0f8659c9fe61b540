package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/kubernetes"
)

// entries are the columns in which kubectl shows what nodes write about themselves.
const entries = `custom-columns=NAME:.metadata.name,` +
	`ENDPOINT:.metadata.annotations.weft\.network/endpoint,KEY:.metadata.annotations.weft\.network/key`

// inspect prints what an operator sees.
func (d *demo) inspect(ctx context.Context) error {
	for i, args := range [][]string{
		{"get", "nodes"},
		{"get", "nodes", "-o", entries},
		{"get", "pods", "-A", "-o", "custom-columns=NAME:.metadata.name,NODE:.spec.nodeName,ADDRESSES:.status.podIPs[*].ip"},
	} {
		if i > 0 {
			d.Gap()
		}
		if err := d.kubectl(ctx, args...); err != nil {
			return err
		}
	}
	if err := d.ShowCommand(ctx, d.Node(1), "status"); err != nil || !d.Sealed() {
		return err
	}
	return d.ShowCommand(ctx, d.Node(1), "peers")
}

// deletePods deletes all pods, and looks for what weft still holds for them.
func (d *demo) deletePods(ctx context.Context) error {
	weft, err := filepath.Abs(filepath.Join(d.Bin, "weft"))
	if err != nil {
		return err
	}
	held := 0
	for _, node := range d.Cluster.Nodes() {
		leases, _, err := kubernetes.Held(ctx, node, weft)
		if err != nil {
			return err
		}
		held += leases
	}
	if held == 0 {
		return fmt.Errorf("there are pods, and no lease")
	}
	d.OK("%d leases are held on both nodes", held)
	started := time.Now()
	for _, namespace := range []string{spread, web} {
		if err := d.Admin.CoreV1().Namespaces().Delete(ctx, namespace, meta.DeleteOptions{}); err != nil {
			return err
		}
	}
	for _, node := range d.Cluster.Nodes() {
		if err := kubernetes.AwaitNothingHeld(ctx, node, weft); err != nil {
			return d.Concerning(err, node)
		}
		d.Done(time.Since(started), "their namespaces are deleted: %s holds no lease and no veth", node.Entry().Name)
	}
	return nil
}
