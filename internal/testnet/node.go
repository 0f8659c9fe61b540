package testnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"weft/internal/nodekey"
)

const (
	// TUNName is the name of the overlay's device on every node.
	TUNName = "weft0"

	// MetricsAddress is where a weftd serves metrics, health and its status page, inside its node.
	MetricsAddress = "127.0.0.1:9339"

	networkName = "weft"
)

// NodeOptions describe a Node.
type NodeOptions struct {
	// NodeEntry is the node as nodes.yaml lists it. The address of its endpoint
	// must be given to one of the node's links by the caller.
	NodeEntry

	// ClusterCIDRs contain the pod CIDRs of all nodes.
	ClusterCIDRs []netip.Prefix

	// Sealed has the node encrypt what it sends to others. It gets a key of its own.
	Sealed bool

	// Configure may change weft.yaml before it is written, key by key.
	Configure func(weft map[string]any)
}

// Node is a namespace in which a weftd runs, with the pods of that node. The
// namespace routes no packets until weftd, or the caller, turns forwarding on.
type Node struct {
	*Namespace
	*Service // weftd
	options  NodeOptions
	dir      string

	mu     sync.Mutex
	pods   map[string]*Pod
	binDir string // of its programs
}

// Use has the node's programs taken from a folder, from their next start on.
func (n *Node) Use(binDir string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.binDir = binDir
}

// BinDir holds the node's programs.
func (n *Node) BinDir() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.binDir
}

// AddNode makes a node's namespace and folder. The caller connects it, gives it
// the others by SetNodes, and starts it.
func (n *Net) AddNode(ctx context.Context, o NodeOptions) (*Node, error) {
	if n.options.BinDir == "" {
		return nil, fmt.Errorf("add node %s: the option BinDir does not say where weftd is", o.Name)
	}
	ns, err := n.AddNamespace(ctx, o.Name)
	if err != nil {
		return nil, err
	}
	node := &Node{
		Namespace: ns,
		options:   o,
		dir:       filepath.Join(n.Dir(), o.Name),
		pods:      make(map[string]*Pod),
		binDir:    n.options.BinDir,
	}
	if err := node.prepare(); err != nil {
		return nil, fmt.Errorf("add node %s: %w", o.Name, err)
	}
	// weft.yaml is written anew before each start.
	node.Service = n.AddService("weftd on "+o.Name, filepath.Join(node.dir, "weftd.log"), node.isReady, func() (*exec.Cmd, error) {
		return node.Command(context.Background(), node.program("weftd"), "--config", node.configFile()), node.writeConfig()
	})
	node.mustSucceed = true
	n.mu.Lock()
	n.nodes = append(n.nodes, node)
	n.mu.Unlock()
	return node, nil
}

func (n *Node) prepare() error {
	// A new namespace inherits this from the host; a fresh Linux has it off.
	if err := n.Sysctl("net.ipv4.ip_forward", "0"); err != nil {
		return err
	}
	for _, dir := range []string{n.dir, n.RunDir(), n.ConfDir(), filepath.Join(n.dir, "state")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if n.options.Sealed {
		_, fingerprint, err := nodekey.Generate(n.dir)
		if err != nil {
			return err
		}
		n.options.Key = fingerprint.String()
	}
	return errors.Join(n.writeConfig(), n.SetNodes([]NodeEntry{n.Entry()}))
}

func (o NodeOptions) encapsulation() string {
	if o.Sealed {
		return "sealed"
	}
	return "vxlan"
}

// Entry is the node as nodes.yaml lists it.
func (n *Node) Entry() NodeEntry { return n.options.NodeEntry }

// Dir holds the node's files: weft.yaml, nodes.yaml, weftd.log, run, state and cni.
func (n *Node) Dir() string { return n.dir }

// RunDir is the runDir of the node's configuration.
func (n *Node) RunDir() string { return filepath.Join(n.dir, "run") }

// KeyFile holds the key of a sealed node.
func (n *Node) KeyFile() string { return filepath.Join(n.dir, nodekey.FileName) }

// Socket is where weftd answers the weft command.
func (n *Node) Socket() string { return filepath.Join(n.RunDir(), "weftd.sock") }

// ConfDir is where weftd writes the conflist, and a container runtime finds it.
func (n *Node) ConfDir() string { return filepath.Join(n.dir, "cni") }

func (n *Node) configFile() string { return filepath.Join(n.dir, "weft.yaml") }
func (n *Node) nodesFile() string  { return filepath.Join(n.dir, "nodes.yaml") }
func (n *Node) program(name string) string {
	return filepath.Join(n.BinDir(), name)
}

func (n *Node) isReady(ctx context.Context) error {
	_, err := n.Get(ctx, "/readyz")
	return err
}

// Get fetches a path from the node's metrics listener. Any status but 200 is an
// error that quotes the answer.
func (n *Node) Get(ctx context.Context, path string) (string, error) {
	return n.get(ctx, "http://"+MetricsAddress, path)
}

// Metrics are the values of weftd's metrics, as it writes them, by their names with labels.
func (n *Node) Metrics(ctx context.Context) (map[string]string, error) {
	text, err := n.Get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	return parseMetrics(text), nil
}

// parseMetrics reads Prometheus's text format, without timestamps.
func parseMetrics(text string) map[string]string {
	metrics := make(map[string]string)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		// Labels may contain spaces, values do not.
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			metrics[line[:i]] = line[i+1:]
		}
	}
	return metrics
}
