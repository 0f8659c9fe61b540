package pods

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"weft/benchmarks/system"
	"weft/encap"
	"weft/internal/nftable"
	"weft/internal/nodefile"
	"weft/internal/testnet"
)

// The systems.
const (
	Weft   = "weft-cni"
	Bridge = "bridge+host-local"
	PTP    = "ptp+host-local"
)

// Baseline is the system that the others are compared with in tables.
const Baseline = Bridge

// Systems are the names of all systems, in the order of tables.
func Systems() []string { return []string{Bridge, PTP, Weft} }

// podCIDRs have room for MaxPods.
var podCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:244:1::/64")}

// MaxPods is how many pods a node can have: the addresses of its IPv4 range but for the
// network's, the broadcast address and the node's own.
const MaxPods = 253

// netPrefix begins the names of the nodes' namespaces.
const netPrefix = "weft-bench-pods"

// Programs says where the plugins are.
type Programs struct {
	// Weft is the folder of weft-cni.
	Weft string

	// Others is the folder of bridge, ptp and host-local.
	Others string
}

// Plugin returns the path of the plugin that a system begins with.
func (p Programs) Plugin(name string) string {
	dir := p.Others
	if name == Weft {
		dir = p.Weft
	}
	plugin, _, _ := strings.Cut(name, "+")
	return filepath.Join(dir, plugin)
}

// Node is one that pods are attached to by one system.
type Node struct {
	*testnet.Namespace
	System string

	plugin string
	conf   map[string]any
}

// Site holds a node for each system.
type Site struct {
	Nodes []*Node
	net   *testnet.Net
	state string
}

// Start makes the nodes. They keep their state in a folder of their own below dir, which
// must be on a disk, and are there until Close is called.
func Start(ctx context.Context, programs Programs, dir string) (_ *Site, err error) {
	state, err := os.MkdirTemp(dir, "state-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the plugins' state: %w", err)
	}
	s := &Site{state: state}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := requireDisk(state); err != nil {
		return nil, err
	}
	// What is interrupted detaches and removes its pods, for which it needs the nodes.
	if s.net, err = testnet.New(context.WithoutCancel(ctx), testnet.Options{Prefix: netPrefix}); err != nil {
		return nil, err
	}
	for i, name := range Systems() {
		n := &Node{System: name, plugin: programs.Plugin(name)}
		if n.Namespace, err = s.net.AddNamespace(ctx, fmt.Sprintf("node%d", i+1)); err != nil {
			return nil, err
		}
		if err := n.prepare(ctx, state); err != nil {
			return nil, fmt.Errorf("prepare a node for %s: %w", name, err)
		}
		s.Nodes = append(s.Nodes, n)
	}
	return s, nil
}

// Close removes the nodes and their state.
func (s *Site) Close() error {
	var err error
	if s.net != nil {
		err = s.net.Close()
	}
	return errors.Join(err, os.RemoveAll(s.state))
}

// requireDisk refuses a folder whose files are in memory: there an fsync costs nothing.
func requireDisk(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("look what %s is on: %w", dir, err)
	}
	if fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC {
		return fmt.Errorf("%s is in memory: the plugins' state must be on a disk", dir)
	}
	return nil
}

func (n *Node) prepare(ctx context.Context, state string) error {
	for _, key := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"} {
		if err := n.Sysctl(key, "1"); err != nil {
			return err
		}
	}
	if err := n.Sysctl("net.ipv6.conf.default.accept_dad", "0"); err != nil {
		return err
	}
	n.conf = map[string]any{"cniVersion": "1.0.0", "name": "pods"}
	if n.System == Weft {
		return n.prepareWeft(ctx, state)
	}
	n.conf["type"] = filepath.Base(n.plugin)
	n.conf["mtu"] = system.InnerMTU
	n.conf["ipMasq"] = false
	n.conf["ipam"] = map[string]any{
		"type":    "host-local",
		"dataDir": filepath.Join(state, n.System),
		"ranges":  [][]any{{map[string]any{"subnet": podCIDRs[0]}}, {map[string]any{"subnet": podCIDRs[1]}}},
		"routes":  []any{map[string]any{"dst": "0.0.0.0/0"}, map[string]any{"dst": "::/0"}},
	}
	if n.System == Bridge {
		n.conf["bridge"] = "cni0"
		n.conf["isGateway"] = true
	}
	return nil
}

// prepareWeft makes what weftd prepares on a node and weft-cni looks at.
func (n *Node) prepareWeft(ctx context.Context, state string) error {
	n.conf["cniVersion"] = "1.1.0" // which has STATUS
	n.conf["type"] = Weft
	n.conf["stateDir"] = filepath.Join(state, Weft)
	runDir := filepath.Join(state, "run")
	n.conf["runDir"] = runDir
	if err := os.Mkdir(runDir, 0o755); err != nil {
		return err
	}
	node := nodefile.Node{
		Name: "node", PodCIDRs: podCIDRs, TUN: testnet.TUNName, MTU: system.InnerMTU,
		GSOMaxSize: encap.MaxSuperPacket, GSOMaxSegs: encap.MaxSegments,
		Guard: nftable.Identity{Comment: "of the benchmark"},
	}
	if _, err := n.Exec(ctx, "nft", `table inet weft { comment "of the benchmark"; }`); err != nil {
		return err
	}
	commands := []string{"ip tuntap add weft0 mode tun"}
	for _, cidr := range podCIDRs {
		own := cidr.Addr().Next()
		node.Addresses = append(node.Addresses, own)
		commands = append(commands, fmt.Sprintf("ip address add %s dev weft0", netip.PrefixFrom(own, own.BitLen())))
	}
	if err := n.ExecAll(ctx, append(commands, "ip link set weft0 up")...); err != nil {
		return err
	}
	if err := nodefile.Forwards(runDir); err != nil {
		return err
	}
	return nodefile.Write(runDir, node)
}

// confWith returns the network configuration, with the previous result if there is one.
func (n *Node) confWith(previous []byte) ([]byte, error) {
	conf := maps.Clone(n.conf)
	if previous != nil {
		conf["prevResult"] = json.RawMessage(previous)
	}
	data, err := json.Marshal(conf)
	if err != nil {
		return nil, fmt.Errorf("encode the configuration of %s: %w", n.System, err)
	}
	return data, nil
}
