package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/renameio/v2"
	"go.yaml.in/yaml/v4"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"weft/internal/testnet"
	"weft/ipam"
)

// write writes a network beside weftd's conflist, as an administrator would, and returns when
// containerd uses it, if it comes first. It goes at the end of the test.
func (m *machine) write(t *testing.T, file string, network map[string]any) {
	t.Helper()
	content, err := json.Marshal(network)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(m.ConfDir(), file)
	// As containerd requires it: see conflist.Writer.
	if err := renameio.WriteFile(path, content, 0o600, renameio.WithTempDir(m.ConfDir())); err != nil {
		t.Fatal(err)
	}
	m.awaitNetwork(t, network["name"].(string), "")
	t.Cleanup(func() {
		if err := os.Rename(path, path+".off"); err != nil {
			t.Error(err)
		}
		m.awaitNetwork(t, "weft", "")
		if err := os.Remove(path + ".off"); err != nil {
			t.Error(err)
		}
	})
}

// awaitNetwork returns when containerd uses a network, and a plugin in it.
func (m *machine) awaitNetwork(t *testing.T, network, plugin string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // clean-ups call it, too
	err := testnet.Wait(ctx, "containerd to use network "+network, func(ctx context.Context) error {
		status, err := m.pods.Status(ctx, &cri.StatusRequest{Verbose: true})
		if err != nil {
			return err
		}
		shown := status.Info["cniconfig"]
		var config struct {
			Networks []struct{ Config struct{ Name, Source string } }
		}
		if err := json.Unmarshal([]byte(shown), &config); err != nil {
			return fmt.Errorf("read the networks of containerd: %w: %s", err, shown)
		}
		for _, n := range config.Networks {
			if n.Config.Name == network && strings.Contains(n.Config.Source, plugin) {
				return nil
			}
		}
		return fmt.Errorf("it uses %s", shown)
	})
	if err != nil {
		t.Error(err)
	}
}

// weftCNI is weft-cni's entry in a conflist that weftd does not write.
func (m *machine) weftCNI() map[string]any {
	return map[string]any{"type": "weft-cni", "runDir": m.RunDir(), "stateDir": filepath.Join(m.Dir(), "state")}
}

// documented returns the network that a section of the documentation has for an example, with the
// node's own folders.
func (m *machine) documented(t *testing.T, section string) (network map[string]any) {
	t.Helper()
	page, err := os.ReadFile("../docs/operations/pods.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "\n### "+section+"\n")
	_, block, _ := strings.Cut(text, "```yaml\n")
	block, _, _ = strings.Cut(block, "```")
	block = strings.ReplaceAll(block, "fd00:244::/48", "fd00:244::/32") // testnet's cluster CIDR
	var object struct {
		Spec struct{ Config string }
	}
	if err := yaml.Unmarshal([]byte(block), &object); err != nil {
		t.Fatalf("the example in section %s: %v\n%s", section, err, block)
	}
	if err := json.Unmarshal([]byte(cmp.Or(object.Spec.Config, block)), &network); err != nil {
		t.Fatalf("the example in section %s: %v\n%s", section, err, block)
	}
	for _, plugin := range network["plugins"].([]any) {
		if entry := plugin.(map[string]any); entry["type"] == "weft-cni" {
			maps.Copy(entry, m.weftCNI())
		}
	}
	return network
}

// leasesOf returns the leases of a network.
func (m *machine) leasesOf(t *testing.T, network string) []ipam.Lease {
	t.Helper()
	store, err := ipam.Open(filepath.Join(m.Dir(), "state"), network)
	if err != nil {
		t.Fatal(err)
	}
	leases, _, err := store.List()
	if err != nil {
		t.Fatal(err)
	}
	return leases
}

// ptp is an entry of another plugin that makes the pod's interface.
func ptp() map[string]any {
	addresses := []any{map[string]any{"address": "192.0.2.2/24", "gateway": "192.0.2.1"}}
	return map[string]any{"type": "ptp", "ipam": map[string]any{"type": "static", "addresses": addresses, "routes": []any{map[string]any{"dst": "0.0.0.0/0"}}}}
}

// TestOwnConflist: an administrator's conflist calls weft-cni and plugins behind it, those of Debian 12
// and the newest.
func TestOwnConflist(t *testing.T) {
	for _, tt := range []struct {
		name, path string
		versions   []string // beside the documented one
		while      []string // the verbs that are called while the pod runs
		after      []string // and those afterwards
	}{
		// CHECK of Debian 12's portmap fails: see TestCnitoolDrivesTheWholeChain.
		{"Debian's plugins", binDir + ":" + systemPlugins, []string{"1.0.0"}, nil, nil},
		{"the newest plugins", newestPlugins() + ":" + binDir, []string{"1.0.0", "1.1.0"}, []string{"check", "status"}, []string{"gc"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			begin(t)
			log := meshConf{Log: filepath.Join(t.TempDir(), "calls")}
			own := node1.documented(t, "Your own conflist")
			own["cniVersions"], own["plugins"] = tt.versions, append(own["plugins"].([]any), log.entry())
			node1.write(t, "05-own.conflist", own)
			node1.addSandbox(t)
			environ := []string{"CNI_PATH=" + tt.path, fmt.Sprintf(`CAP_ARGS={"portMappings": [{"hostPort": %d, "containerPort": %d, "protocol": "tcp"}]}`, hostPort, serverPort)}
			verb := func(name string) string {
				t.Helper()
				out, err := node1.cnitoolFor(t.Context(), "own", name, environ...)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				return out
			}
			addrs := resultAddrs(t, verb("add"))
			expectReached(t, node2, "after ADD", addrs)
			node1.expectSandboxTuned(t)
			node1.serveInSandbox(t)
			for _, node := range underlay(1) {
				for _, from := range []*testnet.Namespace{cluster.Outside, node2.Namespace, node1.Namespace} {
					eventually(t, fmt.Sprintf("the hostPort at %s from %s", node, from.Name()), func(ctx context.Context) error {
						conn, err := from.Dial(ctx, "tcp", netip.AddrPortFrom(node, hostPort).String())
						if err == nil {
							err = conn.Close()
						}
						return err
					})
				}
			}
			verbs := slices.Concat(tt.while, []string{"del", "del"}, tt.after)
			for _, name := range verbs {
				verb(name)
			}
			if leases := node1.leasesOf(t, "own"); len(leases) > 0 {
				t.Errorf("left are the leases %v", leases)
			}
			want := append([]string{"add"}, verbs...)
			if got := log.called(); !strings.EqualFold(strings.Join(got, " "), strings.Join(want, " ")) {
				t.Errorf("the last plugin of the chain was called with %s, want %s", got, want)
			}
		})
	}
}

// serveInSandbox has a server listen on serverPort in the sandbox until the test ends.
func (m *machine) serveInSandbox(t *testing.T) {
	t.Helper()
	server := m.Inside(t.Context(), "ip", "netns", "exec", sandbox, "busybox", "httpd", "-f", "-p", fmt.Sprint(serverPort), "-h", "/")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
}

// expectSandboxTuned fails for each plugin behind weft-cni that did nothing for the sandbox.
func (m *machine) expectSandboxTuned(t *testing.T) {
	t.Helper()
	for _, tt := range []struct{ plugin, command, want string }{
		{"tuning", "ip netns exec " + sandbox + " sysctl -n net.ipv4.conf.eth0.arp_filter", `^1\n`},
		{"bandwidth, to the pod", "tc qdisc show", `dev weft\w+ .* rate 10Mbit`},
		{"bandwidth, from the pod", "tc qdisc show", `tbf .* dev bwp\w+ .* rate 20Mbit`},
		{"portmap", "iptables-save -t nat", fmt.Sprintf(`--dport %d .*-j DNAT`, hostPort)},
		{"portmap, IPv6", "ip6tables-save -t nat", fmt.Sprintf(`--dport %d .*-j DNAT`, hostPort)},
		{"firewall", "iptables-save -t filter", `-A CNI-FORWARD -s 10\.244\.`},
	} {
		out, err := m.run(t.Context(), "sh", "-c", tt.command)
		if err != nil || !regexp.MustCompile(tt.want).MatchString(out) {
			t.Errorf("%s: %v, no %q in:\n%s", tt.plugin, err, tt.want, out)
		}
	}
}

// A plugin before weft-cni must not make the pod's interface: ADD fails, names the remedy, and leaves
// nothing.
func TestMainPluginBeforeWeftCNI(t *testing.T) {
	begin(t)
	node1.write(t, "05-own.conflist", map[string]any{"cniVersion": "1.0.0", "name": "own", "plugins": []any{ptp(), node1.weftCNI()}})
	node1.addSandbox(t)
	path := "CNI_PATH=" + binDir + ":" + systemPlugins
	if _, err := node1.cnitoolFor(t.Context(), "own", "add", path); err == nil || !strings.Contains(err.Error(), "remove the plugin before weft-cni that made it") {
		t.Errorf("ADD: %v", err)
	}
	if _, err := node1.cnitoolFor(t.Context(), "own", "del", path); err != nil {
		t.Errorf("DEL: %v", err)
	}
	if links, err := node1.run(t.Context(), "ip", "-n", sandbox, "-o", "link"); err != nil || strings.Contains(links, "eth0") {
		t.Errorf("left in the pod: %s, %v", links, err)
	}
}
