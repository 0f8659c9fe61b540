package main

import (
	"context"
	_ "embed"
	"fmt"
	"path/filepath"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft/internal/testnet"
	"weft/kubernetes"
)

//go:embed coredns.yaml
var coreDNS string

// nodes is how many the tests of externalTrafficPolicy and of zones want.
const nodes = 3

// cluster is a Kubernetes of dual-stack nodes whose only network is weft, sealed, as its manifest
// installs it. Each node is in a zone of its own.
type cluster struct {
	*kubernetes.Installed
	programs programs
}

func startCluster(ctx context.Context, n *testnet.Net, p programs) (*cluster, error) {
	installed, err := kubernetes.NewInstalled(ctx, n, nodes, p.kubernetes, p.weft)
	if err != nil {
		return nil, err
	}
	c := &cluster{installed, p}
	if err := c.installWeft(ctx, filepath.Join(n.Dir(), "weft.yaml")); err != nil {
		return nil, fmt.Errorf("install weft: %w", err)
	}
	if err := c.labelZones(ctx); err != nil {
		return nil, err
	}
	images := filepath.Join(n.Dir(), "suite.tar")
	if err := writeImages(ctx, images, p); err != nil {
		return nil, err
	}
	if err := c.importImages(ctx, images); err != nil {
		return nil, err
	}
	return c, c.installDNS(ctx)
}

// installWeft is the one place where the cluster gets its pod network.
func (c *cluster) installWeft(ctx context.Context, manifest string) error {
	if err := c.importImages(ctx, c.programs.weft.Image); err != nil {
		return err
	}
	manifest, err := c.OwnManifest(manifest)
	if err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, "apply", "--filename", manifest); err != nil {
		return err
	}
	return c.AwaitReady(ctx)
}

func (c *cluster) labelZones(ctx context.Context) error {
	for _, n := range c.Kubernetes.Nodes {
		name := n.NodeName()
		patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, core.LabelTopologyZone, "zone-of-"+name)
		if _, err := c.Admin.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, patch, meta.PatchOptions{}); err != nil {
			return fmt.Errorf("label %s: %w", name, err)
		}
	}
	return nil
}

func (c *cluster) importImages(ctx context.Context, archive string) error {
	for _, n := range c.Kubernetes.Nodes {
		if err := n.ImportImage(ctx, archive); err != nil {
			return fmt.Errorf("import %s: %w", archive, err)
		}
	}
	return nil
}

func (c *cluster) installDNS(ctx context.Context) error {
	if err := c.Admin.ApplyYAML(ctx, coreDNS); err != nil {
		return fmt.Errorf("install CoreDNS: %w", err)
	}
	_, err := c.Pods(ctx, "kube-system", "coredns", 2)
	return err
}
