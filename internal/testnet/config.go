package testnet

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/google/renameio/v2"
	"go.yaml.in/yaml/v4"

	"weft/internal/family"
)

// NodeEntry is what nodes.yaml says about a node.
type NodeEntry struct {
	Name      string         `yaml:"name"`
	Endpoint  netip.AddrPort `yaml:"endpoint"`
	Addresses []netip.Addr   `yaml:"addresses,omitempty"`
	PodCIDRs  []netip.Prefix `yaml:"podCIDRs"`
	VTEPMAC   string         `yaml:"vtepMAC,omitempty"`
	Key       string         `yaml:"key,omitempty"`
}

// SetNodes replaces the node's nodes.yaml as a whole. A running weftd reads it again
// by itself.
func (n *Node) SetNodes(nodes []NodeEntry) error {
	return writeYAML(n.nodesFile(), map[string]any{"nodes": nodes})
}

// writeConfig writes weft.yaml: everything that the node writes or listens on lies
// in its folder or its namespace, so that nodes don't meet on the host.
func (n *Node) writeConfig() error {
	config := map[string]any{
		"node":          n.options.Name,
		"clusterCIDRs":  n.options.ClusterCIDRs,
		"encapsulation": n.options.encapsulation(),
		"keyFile":       n.KeyFile(),
		"listen":        netip.AddrPortFrom(family.Of(n.options.Endpoint.Addr()).Unspecified(), n.options.Endpoint.Port()),
		"control":       map[string]any{"file": n.nodesFile()},
		"tun":           map[string]any{"name": TUNName},
		"vxlan":         map[string]any{"vni": 1},
		"stateDir":      filepath.Join(n.dir, "state"),
		"runDir":        n.RunDir(),
		// What else the host has of plugins is no part of it.
		"cni":     map[string]any{"confDir": n.ConfDir(), "binDir": n.BinDir(), "chain": []string{}, "name": networkName},
		"metrics": map[string]any{"listen": MetricsAddress},
	}
	if n.options.Configure != nil {
		n.options.Configure(config)
	}
	return writeYAML(n.configFile(), config)
}

// writeYAML replaces a file by rename, so that no reader sees half of it.
func writeYAML(path string, content any) error {
	data, err := yaml.Marshal(content)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if err := renameio.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
