package setup

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weft/control"
	"weft/control/sources"
	"weft/internal/config"
	"weft/internal/strict"
)

// sourceLimit is how long the control source may take to answer.
const sourceLimit = 15 * time.Second

// load returns the nodes that the control source knows.
func load(ctx context.Context, c config.Config) ([]control.Node, error) {
	source, err := sources.Open(c)
	if err != nil {
		return nil, Mistake{err}
	}
	ctx, cancel := context.WithTimeout(ctx, sourceLimit)
	defer cancel()
	state, err := source.Load(ctx)
	return state.Nodes, err
}

// JoinRegistry makes this host a node of the cluster that registers in etcd or in Kubernetes: weftd
// registers it when it starts.
func JoinRegistry(ctx context.Context, r Request) (*Node, error) {
	if !r.Flags.Changed("cluster-cidrs") {
		return nil, Mistake{errors.New("the cluster CIDRs are missing; give those of the other nodes with --cluster-cidrs")}
	}
	if err := r.expectNew(); err != nil {
		return nil, err
	}
	d, err := r.draft(autoRule, nil)
	if err != nil {
		return nil, err
	}
	var nodes []control.Node
	if d.Source == config.SourceEtcd {
		if nodes, err = load(ctx, d.config); err != nil {
			return nil, err
		}
		if len(nodes) == 0 {
			return nil, fmt.Errorf("etcd has no nodes under %s; if this is the first node of a new cluster, run `weft init` with the same flags, and otherwise give the cluster's prefix with --control-etcd-prefix", d.config.Control.Etcd.Prefix)
		}
	}
	for _, n := range nodes {
		for _, p := range n.PodCIDRs {
			if !strict.Within(p, d.ClusterCIDRs) {
				return nil, fmt.Errorf("node %s has the pod CIDR %s, which is in none of the cluster CIDRs (%s); give those of the other nodes with --cluster-cidrs", n.Name, p, control.Join(d.ClusterCIDRs))
			}
		}
		d.Others = append(d.Others, n.Name)
	}
	if err := d.key(); err != nil {
		return nil, err
	}
	for _, n := range nodes {
		if n.Name == d.Name && n.Key != d.Key {
			return nil, fmt.Errorf("node %s is registered already, with %s; if this host replaces it, run `weft node remove %s` first, and otherwise give this one another name with --node", n.Name, keyOf(n), n.Name)
		}
	}
	return d.write(nil)
}

// JoinList adds this node to the list of nodes that was copied here, like the configuration, from
// another node. The other nodes don't know it yet.
func JoinList(c config.Config, r Request) (*Node, error) {
	d := &draft{request: r, config: c, Node: Node{Name: c.Node, Source: c.Control.Source, ClusterCIDRs: c.ClusterCIDRs}}
	if err := d.key(); err != nil {
		return nil, err
	}
	options := control.Options{Node: c.Node, ClusterCIDRs: c.ClusterCIDRs, Key: d.Key}
	_, added, err := update(c.Control.File, options, r.DryRun, func(listed []control.Node) (control.Node, error) {
		others := slices.DeleteFunc(slices.Clone(listed), func(n control.Node) bool { return n.Name == c.Node })
		for _, n := range listed {
			if n.Name == c.Node && n.Key == d.Key {
				d.Endpoint, d.request.PodCIDRs = n.Endpoint, n.PodCIDRs
				return d.self(others)
			}
		}
		rule := autoRule
		if len(others) > 0 {
			rule = canReach(others[0].Endpoint)
		}
		var err error
		if d.Endpoint, err = endpoint(c, r.Flags, rule); err != nil {
			return control.Node{}, err
		}
		return d.self(others)
	})
	if err != nil {
		return nil, err
	}
	change := Kept
	switch {
	case added && r.DryRun:
		change = WouldWrite
	case added:
		change = Changed
	}
	d.Files = append(d.Files, File{Path: c.Control.File, Change: change})
	return &d.Node, nil
}

// canReach is the rule that chooses the address from which this node reaches another one.
func canReach(other netip.AddrPort) string { return "can-reach=" + other.Addr().String() }
