package system

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"

	"weft/internal/testnet"
)

const (
	nebulaLink   = "nebula0"
	nebulaPort   = 4242
	nebulaBuffer = 8 << 20 // weftd's, and about wireguard-go's
)

// nebulaAddr are the nodes' addresses in Nebula's own network. Pods' CIDRs lie behind them:
// Nebula calls these unsafe networks, and they are in the nodes' certificates.
var nebulaAddr = [2]netip.Prefix{netip.MustParsePrefix("100.64.0.1/24"), netip.MustParsePrefix("100.64.0.2/24")}

// nebula is Nebula on one node. Its files are in dir.
type nebula struct {
	programs Programs
	node     *testnet.Namespace
	index    int
	dir      string
}

// connectNebula has Nebula carry pods' packets, on its own TUN device. Each node knows where
// the other is, so that none of them needs to be a lighthouse.
func connectNebula(ctx context.Context, s *site) (*Path, error) {
	p, err := s.kernelNodes(ctx)
	if err != nil {
		return nil, err
	}
	p.device = nebulaLink
	authority := filepath.Join(s.net.Dir(), "ca")
	err = p.Nodes[0].ExecAll(ctx, fmt.Sprintf("%s ca -name bench -out-crt %s.crt -out-key %s.key", s.programs.NebulaCert, authority, authority))
	if err != nil {
		return nil, err
	}
	var daemons [2]nebula
	for i, n := range p.Nodes {
		daemons[i] = nebula{programs: s.programs, node: n, index: i, dir: filepath.Join(s.net.Dir(), fmt.Sprintf("node%d", i+1))}
		if err := daemons[i].prepare(ctx, authority); err != nil {
			return nil, err
		}
		if err := daemons[i].start(ctx, s.net); err != nil {
			return nil, err
		}
	}
	p.verify = func(ctx context.Context, _ Counters) error {
		for _, n := range daemons {
			if err := n.verify(ctx); err != nil {
				return err
			}
		}
		return nil
	}
	return p, nil
}

// prepare writes the node's certificate and configuration.
func (n nebula) prepare(ctx context.Context, authority string) error {
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		return fmt.Errorf("make a folder for nebula: %w", err)
	}
	err := n.node.ExecAll(ctx, fmt.Sprintf("%s sign -ca-crt %s.crt -ca-key %s.key -name node%d -networks %s -unsafe-networks %s -out-crt %s -out-key %s",
		n.programs.NebulaCert, authority, authority, n.index+1, nebulaAddr[n.index], podCIDR[n.index], n.file("crt"), n.file("key")))
	if err != nil {
		return err
	}
	config, err := json.Marshal(n.config(authority)) // which is YAML, too
	if err == nil {
		err = os.WriteFile(n.file("yml"), config, 0o644)
	}
	if err != nil {
		return fmt.Errorf("write nebula's configuration: %w", err)
	}
	return nil
}

func (n nebula) file(ending string) string { return filepath.Join(n.dir, "nebula."+ending) }

// config is what makes Nebula fast by its documentation: the offloads of the TUN device and of
// UDP, which are off by default (with them a TCP stream was 5 times as fast), and large buffers
// of the socket. The rest has its defaults: batches of 64, AES-GCM, and one routine. On two
// processors two routines moved more small packets and took longer for a round trip; a TCP
// stream was as fast.
func (n nebula) config(authority string) map[string]any {
	other := 1 - n.index
	everything := []any{map[string]any{"port": "any", "proto": "any", "host": "any", "local_cidr": "any"}}
	return map[string]any{
		"pki":             map[string]any{"ca": authority + ".crt", "cert": n.file("crt"), "key": n.file("key")},
		"static_host_map": map[string]any{nebulaAddr[other].Addr().String(): []string{fmt.Sprint(nebulaEndpoint(other))}},
		"listen": map[string]any{"host": "0.0.0.0", "port": nebulaPort,
			"read_buffer": nebulaBuffer, "write_buffer": nebulaBuffer, "udp_offloads": true},
		"punchy": map[string]any{"punch": false},
		"tun": map[string]any{"dev": nebulaLink, "mtu": InnerMTU, "use_offloads": true,
			"unsafe_routes": []any{map[string]any{"route": podCIDR[other], "via": nebulaAddr[other].Addr()}}},
		"firewall":  map[string]any{"outbound": everything, "inbound": everything},
		"local_api": map[string]any{"control": map[string]any{"socket": n.file("sock")}},
	}
}

func nebulaEndpoint(node int) netip.AddrPort {
	return netip.AddrPortFrom(underlay[node].Addr(), nebulaPort)
}

func (n nebula) start(ctx context.Context, net *testnet.Net) error {
	answers := func(ctx context.Context) error {
		_, err := n.tunnels(ctx)
		return err
	}
	return net.AddService(fmt.Sprintf("nebula on node%d", n.index+1), n.file("log"), answers, func() (*exec.Cmd, error) {
		return n.node.Command(context.Background(), n.programs.Nebula, "-config", n.file("yml")), nil
	}).Start(ctx)
}

// nebulaTunnel is what Nebula says about a tunnel.
type nebulaTunnel struct {
	CurrentRemote  netip.AddrPort
	MessageCounter uint64 // of what was sent
}

func (n nebula) tunnels(ctx context.Context) (tunnels []nebulaTunnel, err error) {
	err = n.node.RunJSON(ctx, &tunnels, n.programs.Nebula, "ctl", "-socket", n.file("sock"), "list-hostmap", "-json")
	return tunnels, err
}

// verify checks that the node has a tunnel to the other one, and has sent packets by it.
func (n nebula) verify(ctx context.Context) error {
	tunnels, err := n.tunnels(ctx)
	if err != nil {
		return err
	}
	want := nebulaEndpoint(1 - n.index)
	for _, t := range tunnels {
		if t.CurrentRemote == want && t.MessageCounter > probes {
			return nil
		}
	}
	return fmt.Errorf("pods talk, but nebula on node%d has no tunnel to %s with more than %d packets: %+v", n.index+1, want, probes, tunnels)
}
