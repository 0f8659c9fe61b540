package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/nodekey"
	"weft/internal/setup"
	"weft/internal/testnet"
)

// host is one on which weft is set up: a folder for its files, and flags that name them.
type host struct {
	t     *testing.T
	dir   string
	flags []string
}

// newHost is a host with a name. All of a test are in one network namespace, where eth0 has
// 192.0.2.1, 192.0.2.2 and the default route.
func newHost(t *testing.T, name string) *host {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "weft") // not there yet
	return &host{t, dir, []string{"--node=" + name, "--config=" + dir + "/weft.yaml", "--control-file=" + dir + "/nodes.yaml", "--key-file=" + dir + "/node.key"}}
}

// newNetwork makes that namespace.
func newNetwork(t *testing.T) {
	t.Helper()
	testnet.InNewNamespace(t)
	ip(t, "link add eth0 type veth peer name peer", "link set eth0 up", "link set peer up", "addr add 192.0.2.1/24 dev eth0", "addr add 192.0.2.2/24 dev eth0", "route add default via 192.0.2.254")
}

// ip runs the commands of iproute2, one after the other.
func ip(t *testing.T, commands ...string) {
	t.Helper()
	for _, command := range commands {
		if out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(command)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", command, err, out)
		}
	}
}

func (h *host) weft(args ...string) (code int, stdout, stderr string) {
	h.t.Helper()
	return asWeft(h.t, append(args, h.flags...)...)
}

// must runs a command that must succeed, and returns what it printed.
func (h *host) must(args ...string) string {
	h.t.Helper()
	code, stdout, stderr := h.weft(args...)
	if code != 0 || stderr != "" {
		h.t.Fatalf("weft %v: exit status %d, %s", args, code, stderr)
	}
	return stdout
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

func (h *host) read(name string) string {
	h.t.Helper()
	text, err := os.ReadFile(h.path(name))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(text)
}

func (h *host) write(name, text string) {
	h.t.Helper()
	if err := os.WriteFile(h.path(name), []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) fingerprint() string {
	h.t.Helper()
	fingerprint, err := nodekey.LoadFingerprint(h.path("node.key"))
	if err != nil {
		h.t.Fatal(err)
	}
	return fingerprint.String()
}

// files are all that the host has, by name.
func (h *host) files() map[string]string {
	h.t.Helper()
	entries, err := os.ReadDir(h.dir)
	if err != nil && !os.IsNotExist(err) {
		h.t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		all[e.Name()] = h.read(e.Name())
	}
	return all
}

func TestInitWritesTheFirstNode(t *testing.T) {
	newNetwork(t)
	h := newHost(t, "node1")
	stdout := h.must("init")
	want := strings.NewReplacer("DIR", h.dir, "KEY", h.fingerprint()).Replace(`node           node1 at 192.0.2.1:9338
cluster CIDRs  10.244.0.0/16
pod CIDRs      10.244.0.0/24
fingerprint    KEY
wrote          DIR/node.key
wrote          DIR/nodes.yaml
wrote          DIR/weft.yaml

Start weftd:  systemctl enable --now weftd
Add a node:   weft invite, which prints the command to run there
`)
	if diff := cmp.Diff(want, stdout); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
	wantList := `# The nodes of the cluster: the same file on every node. weftd reads it again whenever it changes.
nodes:
- name: node1
  endpoint: "192.0.2.1:9338"
  podCIDRs: [10.244.0.0/24]
  key: ` + h.fingerprint() + "\n"
	if diff := cmp.Diff(wantList, h.read("nodes.yaml")); diff != "" {
		t.Errorf("nodes.yaml (-want +got):\n%s", diff)
	}
	if list := h.must("node", "list"); strings.Count(list, "\n") != 2 || strings.Contains(list, "REJECTED") {
		t.Errorf("weft node list:\n%s", list)
	}
}

// TestInitReplacesNothing of a host that is a node already, be it by half.
func TestInitReplacesNothing(t *testing.T) {
	newNetwork(t)
	for _, left := range []string{"weft.yaml", "nodes.yaml"} {
		h := newHost(t, "node1")
		h.must("init")
		for name := range h.files() {
			if name != left && name != "node.key" {
				if err := os.Remove(h.path(name)); err != nil {
					t.Fatal(err)
				}
			}
		}
		before := h.files()
		want := "weft: " + h.path(left) + " exists already, and nothing is replaced; if this host is to be set up anew, remove " + h.path("nodes.yaml") + " and " + h.path("weft.yaml") + " first\n"
		if code, stdout, stderr := h.weft("init"); code != exitFailure || stdout != "" || stderr != want {
			t.Errorf("%s is left: exit status %d, %s%s", left, code, stdout, stderr)
		}
		if diff := cmp.Diff(before, h.files()); diff != "" {
			t.Errorf("%s is left: files (-before +after):\n%s", left, diff)
		}
	}
	h := newHost(t, "node1") // the package makes the key, and the operator keeps it
	if err := os.MkdirAll(h.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err := nodekey.Generate(h.dir); err != nil {
		t.Fatal(err)
	}
	before := h.fingerprint()
	if stdout := h.must("init"); !strings.Contains(stdout, "kept           "+h.path("node.key")+"\n") || h.fingerprint() != before {
		t.Errorf("the key was not kept:\n%s", stdout)
	}
}

func TestInitAvoidsRoutesOfTheHost(t *testing.T) {
	for _, tt := range []struct{ route, want string }{
		{"10.244.7.0/24 dev eth0", "10.245.0.0/16"},
		{"10.0.0.0/8 via 192.0.2.254", "172.24.0.0/16"},
		{"10.244.0.0/14 via 192.0.2.254 table 52", "10.248.0.0/16"}, // a VPN's
		{"blackhole 10.244.0.0/16", "10.245.0.0/16"},
		{"10.243.0.0/16 dev eth0", "10.244.0.0/16"},
	} {
		t.Run(tt.route, func(t *testing.T) {
			newNetwork(t)
			ip(t, "route add "+tt.route)
			var node setup.Node
			if err := json.Unmarshal([]byte(newHost(t, "node1").must("init", "-o", "json")), &node); err != nil {
				t.Fatal(err)
			}
			if len(node.ClusterCIDRs) != 1 || node.ClusterCIDRs[0].String() != tt.want {
				t.Errorf("the cluster CIDRs are %v, want %s", node.ClusterCIDRs, tt.want)
			}
		})
	}
	newNetwork(t)
	ip(t, "route add 10.0.0.0/8 dev eth0", "route add 172.16.0.0/12 dev eth0")
	if code, _, stderr := newHost(t, "node1").weft("init"); code != exitFailure || !strings.HasPrefix(stderr, "weft: choose the cluster CIDR: routes of this host lead to all from 10.244.0.0/16 to 172.31.0.0/16; give one with --cluster-cidrs") {
		t.Errorf("exit status %d, %s", code, stderr)
	}
}

// TestInitOverIPv6 needs another listen than the default.
func TestInitOverIPv6(t *testing.T) {
	newNetwork(t)
	ip(t, "addr add fd00:77::1/64 dev eth0 nodad")
	h := newHost(t, "node1")
	h.must("init", "--advertise=fd00:77::1", "--cluster-cidrs=10.244.0.0/16,fd00:244::/48", "--pod-cidrs=10.244.9.0/26,fd00:244:0:9::/64")
	if text := h.read("weft.yaml"); !strings.Contains(text, "\nclusterCIDRs: [10.244.0.0/16, \"fd00:244::/48\"]\n") || !strings.Contains(text, "\nlisten: \"[::]:9338\"\n") || strings.Contains(text, "advertise") {
		t.Errorf("weft.yaml:\n%s", text)
	}
	if text := h.read("nodes.yaml"); !strings.Contains(text, "endpoint: \"[fd00:77::1]:9338\"\n  podCIDRs: [10.244.9.0/26, \"fd00:244:0:9::/64\"]\n") {
		t.Errorf("nodes.yaml:\n%s", text)
	}
}

// TestInitForKubernetes writes no list: the nodes are the cluster's.
func TestInitForKubernetes(t *testing.T) {
	newNetwork(t)
	h := newHost(t, "node1")
	h.flags = slices.DeleteFunc(h.flags, func(f string) bool { return strings.HasPrefix(f, "--control-file") })
	stdout := h.must("init", "--control-kubernetes-kubeconfig=/etc/weft/kubeconfig", "--advertise=interface=eth0")
	if text := h.read("weft.yaml"); !strings.Contains(text, "\n  kubernetes:\n") || !strings.Contains(text, "\n    kubeconfig: /etc/weft/kubeconfig\n") || !strings.Contains(text, "\nadvertise: \"interface=eth0\"\n") {
		t.Errorf("weft.yaml:\n%s", text)
	}
	if files := h.files(); len(files) != 2 || !strings.Contains(stdout, "weft join --cluster-cidrs=10.244.0.0/16, and the kubeconfig of that node\n") {
		t.Errorf("%d files\n%s", len(files), stdout)
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	newNetwork(t)
	h := newHost(t, "node1")
	stdout := h.must("init", "--dry-run")
	for _, part := range []string{"would write    " + h.path("node.key") + "\n", "\n" + h.path("weft.yaml") + ":\n# weftd's configuration.", "- name: node1\n", "Add a node:   weft invite"} {
		if !strings.Contains(stdout, part) {
			t.Errorf("no %q in\n%s", part, stdout)
		}
	}
	if files := h.files(); len(files) > 0 {
		t.Errorf("it wrote %v", files)
	}
}

func TestMistakesInInit(t *testing.T) {
	newNetwork(t)
	ip(t, "route add 10.9.0.0/16 dev eth0", "route add 10.7.3.0/24 via 192.0.2.254")
	h := newHost(t, "node1")
	for _, tt := range []struct {
		args   string
		code   int
		stderr string // its beginning
	}{
		{"init --cluster-cidrs=10.9.0.0/16", exitFailure, "weft: the local network 10.9.0.0/16 on eth0 overlaps the cluster CIDRs [10.9.0.0/16], so the guard table drops its packets; remove that network"},
		{"init --cluster-cidrs=10.8.0.0/15", exitFailure, "weft: the local network 10.9.0.0/16 on eth0 overlaps"},
		{"init --cluster-cidrs=10.7.0.0/16", exitFailure, "weft: a route of another program takes packets to pods: 10.7.3.0/24 via 192.0.2.254 dev eth0 proto boot metric 0; remove it (ip route del 10.7.3.0/24 via 192.0.2.254 dev eth0 proto boot metric 0), or choose other clusterCIDRs on all nodes\n"},
		{"init --node=localhost.localdomain", exitUsage, "weft: the host is called localhost.localdomain, as many others are; give this node's name with --node"},
		{"init --cluster-cidrs=10.9.0.0", exitUsage, "weft: --cluster-cidrs: 10.9.0.0 has no prefix length"},
		{"init --node=Node_1", exitUsage, `weft: --node: "Node_1" is not a valid node name`},
		{"init --advertise=eth0", exitUsage, `weft: --advertise: "eth0" is neither auto nor an IP address`},
		{"init --advertise=interface=eth9", exitFailure, "weft: choose this node's address: advertise interface=eth9: there is no such interface"},
		{"init --advertise=192.0.2.9", exitFailure, "weft: choose this node's address: advertise 192.0.2.9: it is in a subnet of eth0"},
		{"init --pod-cidrs=10.244.0.1/24", exitUsage, "weft: --pod-cidrs: 10.244.0.1/24 has bits set behind its length"},
		{"init --pod-cidrs=10.7.0.0/24", exitUsage, "weft: " + h.path("nodes.yaml") + ":3: node1: pod CIDR 10.7.0.0/24 is in none of the cluster CIDRs (10.244.0.0/16)"},
		{"init --cluster-cidrs=10.244.0.0/25", exitFailure, "weft: no pod CIDR with /24 is free in 10.244.0.0/25; give this node's with --pod-cidrs"},
		{"init --control-etcd-endpoints=https://127.0.0.1:1", exitFailure, "weft: etcd: list the nodes: "},
		{"init --control-etcd-mask-ipv4=26", exitUsage, "weft: --control-etcd-mask-ipv4: control.etcd.endpoints is missing"},
		{"init --tun-lanes=99", exitUsage, `weft: --tun-lanes: "99" is not a whole number`},
		{"init node1", exitUsage, `weft: unknown command "node1" for "weft init"`},
		{"join", exitFailure, "weft: there is no " + h.path("weft.yaml") + "; give the token that `weft invite` prints on a node of the cluster, or etcd's URLs"},
		{"join --control-etcd-endpoints=https://127.0.0.1:1", exitUsage, "weft: the cluster CIDRs are missing; give those of the other nodes with --cluster-cidrs"},
	} {
		args, flags := strings.Fields(tt.args), h.flags
		if strings.Contains(tt.args, "--control-etcd") {
			flags = []string{h.flags[0], h.flags[1], h.flags[3]}
		}
		code, stdout, stderr := asWeft(t, slices.Concat(flags, args)...)
		if code != tt.code || stdout != "" || !strings.HasPrefix(stderr, tt.stderr) {
			t.Errorf("weft %s: exit status %d, %s%s\nwant %d, %s", tt.args, code, stdout, stderr, tt.code, tt.stderr)
		}
		for name := range h.files() {
			if name != "node.key" {
				t.Errorf("weft %s wrote %s", tt.args, name)
			}
		}
	}
}
