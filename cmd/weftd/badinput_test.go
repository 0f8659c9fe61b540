package main_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/nodefile"
	"weft/internal/nodekey"
	"weft/internal/testnet"
)

// minimal is a weft.yaml in which all is right. DIR stands for the node's folder.
const minimal = `node: node1
clusterCIDRs: [10.244.0.0/16]
encapsulation: vxlan
control: {file: DIR/nodes.yaml}
stateDir: DIR/state
runDir: DIR/run
cni: {confDir: DIR/cni}
`

const goodNodes = `nodes:
- name: node1
  endpoint: 192.168.77.1:9338
  podCIDRs: [10.244.1.0/24]
- name: node2
  endpoint: 192.168.77.2:9338
  podCIDRs: [10.244.2.0/24]
`

// keyedNodes is a list in which all is right for a node whose fingerprint is OWN.
const keyedNodes = `nodes:
- name: node1
  endpoint: 192.168.77.1:9338
  podCIDRs: [10.244.1.0/24]
  key: OWN
- name: node2
  endpoint: 192.168.77.2:9338
  podCIDRs: [10.244.2.0/24]
  key: OTHER
`

// weftd and weft refuse it with the remedy.
func TestWrongConfigurationChangesNothing(t *testing.T) {
	t.Parallel()
	node := newCluster(t, testnet.ClusterOptions{Nodes: 1}).Nodes()[0]
	sealed := strings.Replace(minimal, "encapsulation: vxlan\n", "", 1) + "keyFile: DIR/keys/node.key\n"
	own, other := newKey(t, filepath.Join(node.Dir(), "keys")), strings.Repeat("02", 32)
	newKey(t, filepath.Join(node.Dir(), "open"))
	if err := os.Chmod(filepath.Join(node.Dir(), "open", nodekey.FileName), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name        string
		weft, nodes string // minimal and goodNodes if empty
		args        []string
		environ     []string
		want        string // on stderr
	}{
		{name: "unknown key", weft: minimal + "tun:\n  drivr: water\n",
			want: "DIR/weft.yaml:9: tun.drivr: unknown key; did you mean tun.driver?"},
		{name: "sealed without a key", weft: strings.Replace(sealed, "/keys", "", 1), nodes: keyedNodes,
			want: "weftd: DIR/node.key: there is no key; make one with: weft keygen --out DIR"},
		{name: "a key that others may read", weft: strings.Replace(sealed, "/keys", "/open", 1), nodes: keyedNodes,
			want: "weftd: DIR/open/node.key: others may read or write it (mode 0644), so they may know the key; make a new one, or if they have not read it: chmod 600 DIR/open/node.key"},
		{name: "a node without a key in the list", weft: sealed, nodes: strings.Replace(keyedNodes, "  key: OTHER\n", "", 1),
			want: "weftd: DIR/nodes.yaml:6: node2: has no key, which the encapsulation sealed needs; run `weft keygen` there, and write the fingerprint that it prints under key"},
		{name: "two nodes with one key", weft: sealed, nodes: strings.Replace(keyedNodes, "OTHER", "OWN", 1),
			want: "weftd: DIR/nodes.yaml:6: node2: the key is that of node node1 (DIR/nodes.yaml:2); run `weft keygen` on one of the two"},
		{name: "another key in the list than in the key file", weft: sealed, nodes: strings.NewReplacer("OTHER", "OWN", "OWN", "OTHER").Replace(keyedNodes),
			want: "weftd: DIR/nodes.yaml:2: node1: this node's key is OWN, not OTHER; write the first under key, or set the configuration's key keyFile to the file of the other"},
		{name: "a kernel VXLAN device among sealed nodes", weft: sealed, nodes: keyedNodes + "  vtepMAC: 02:00:00:00:00:02\n",
			want: "weftd: DIR/nodes.yaml:6: node2: has a vtepMAC, so it is a kernel VXLAN device, which does not understand the encapsulation sealed; remove the node or its vtepMAC"},
		{name: "a fingerprint that is too long", weft: sealed, nodes: strings.Replace(keyedNodes, "OTHER", "OTHER00", 1),
			want: `weftd: DIR/nodes.yaml:9: nodes[1].key: "OTHER"... is not a fingerprint; write the 64 hexadecimal digits that ` + "`weft keygen` prints, or remove the key"},
		{name: "broken YAML", weft: "node: [\n",
			want: "DIR/weft.yaml:2: not valid YAML at column 1: did not find expected node content (while parsing a flow node that began in line 2); correct the indentation, quotes or brackets here or just before"},
		{name: "two mistakes", weft: minimal + "listen: nowhere\ntun: {lanes: many}\n",
			want: `DIR/weft.yaml:8: listen: "nowhere" is not an IP address and port; write it like 192.168.77.1:9338 or [fd00:77::1]:9338` + "\n" +
				`DIR/weft.yaml:9: tun.lanes: "many" is not a whole number from 0 to 16; write one`},
		{name: "no configuration", args: []string{"--config", "/nowhere/weft.yaml"},
			want: "/nowhere/weft.yaml: the file does not exist; write it, or name another one with --config"},
		{name: "unknown flag", args: []string{"--tun-drivr=water"},
			want: "weftd: unknown flag: --tun-drivr; `weftd --help` lists the flags"},
		{name: "flag without a value", args: []string{"--tun-driver"},
			want: "weftd: flag needs an argument: --tun-driver; `weftd --help` lists the flags"},
		{name: "stray argument", args: []string{"start"},
			want: "weftd: unexpected argument \"start\"; `weftd --help` lists the flags"},
		{name: "bad flag", args: []string{"--tun-driver=wireguad"},
			want: `--tun-driver: unknown driver "wireguad"; write superpacket, wireguard or water`},
		{name: "unknown variable", environ: []string{"WEFT_TUN_DRIVR=water"},
			want: "WEFT_TUN_DRIVR: unknown variable; did you mean WEFT_TUN_DRIVER?"},
		{name: "no list of nodes", weft: strings.Replace(minimal, "nodes.yaml", "absent.yaml", 1),
			want: "weftd: DIR/absent.yaml: file does not exist; write it, or set the configuration's key control.file to another"},
		{name: "broken list of nodes", nodes: "nodes:\n- name: node1\n  endpoint 192.168.77.1\n",
			want: "weftd: DIR/nodes.yaml:4: not valid YAML at column 1: could not find expected ':' (while scanning a simple key that began in line 3); correct the indentation, quotes or brackets here or just before"},
		{name: "unknown key in the list of nodes", nodes: goodNodes + "  vtepMac: 02:00:00:00:00:01\n",
			want: "weftd: DIR/nodes.yaml:8: nodes[1].vtepMac: unknown key; did you mean vtepMAC?"},
		{name: "overlapping pod CIDRs", nodes: strings.Replace(goodNodes, "10.244.2.0/24", "10.244.1.128/25", 1),
			want: "weftd: DIR/nodes.yaml:5: node2: pod CIDR 10.244.1.128/25 overlaps 10.244.1.0/24 of node node1 (DIR/nodes.yaml:2); give every node ranges of its own"},
		{name: "a pod CIDR outside the cluster's", nodes: strings.Replace(goodNodes, "10.244.2.0/24", "10.245.2.0/24", 1),
			want: "weftd: DIR/nodes.yaml:5: node2: pod CIDR 10.245.2.0/24 is in none of the cluster CIDRs (10.244.0.0/16); choose one within them, or add it to clusterCIDRs"},
		{name: "this node is not in the list", weft: strings.Replace(minimal, "node1", "node3", 1),
			want: `weftd: DIR/nodes.yaml: this node, "node3", is not in the list of nodes, which has "node1", "node2"; add it, or set the configuration's key node to its name there`},
	}
	before, routing := network(t, node.Namespace), forwarding(t, node.Namespace)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inDir := strings.NewReplacer("DIR", node.Dir(), "OWN", own, "OTHER", other)
			write(t, configFile(node), inDir.Replace(or(tt.weft, minimal)))
			write(t, nodesFile(node), inDir.Replace(or(tt.nodes, goodNodes)))
			cmd := weftd(t, node, nil, tt.args...)
			cmd.Env = append(cmd.Env, tt.environ...)
			got := finish(t, cmd)
			if strings.HasPrefix(tt.want, "weftd: DIR/") { // behind what was logged
				_, last, _ := cutLast(got.stderr, "\nweftd: ")
				got.stderr = "weftd: " + last
			}
			if want := inDir.Replace(tt.want) + "\n"; got.status != 2 || got.stderr != want || got.stdout != "" {
				t.Errorf("exit status %d, want 2; stderr:\n%swant:\n%sstdout: %q", got.status, got.stderr, want, got.stdout)
			}
			if strings.HasPrefix(tt.want, "weftd: DIR/") { // what the configuration alone protects, it protects
				run(t, node.Namespace, "nft", "delete", "table", "inet", "weft")
				run(t, node.Namespace, "nft", "delete", "table", "bridge", "weft")
				run(t, node.Namespace, "ip", "route", "del", "unreachable", "10.244.0.0/16", "metric", "1073741824", "proto", "93")
			}
			expectSame(t, "the node's network", before, network(t, node.Namespace))
			expectSame(t, "forwarding", routing, forwarding(t, node.Namespace))
			expectSame(t, "the runtime's folder", "", files(t, filepath.Dir(conflist(node))))
			if exists(filepath.Join(node.RunDir(), nodefile.Name)) {
				t.Error("the plugin would add pods")
			}
		})
	}
}

// newKey generates a key in a new folder, and returns its fingerprint.
func newKey(t *testing.T, dir string) string {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	_, fingerprint, err := nodekey.Generate(dir)
	if err != nil {
		t.Fatal(err)
	}
	return fingerprint.String()
}

func or(text, fallback string) string {
	if text == "" {
		return fallback
	}
	return text
}

// TestCheckChangesNothing: --check finds what keeps weftd from starting, beside a running weftd
// too, and leaves everything as it is.
func TestCheckChangesNothing(t *testing.T) {
	t.Parallel()
	node := newCluster(t, testnet.ClusterOptions{Nodes: 1}).Nodes()[0]
	inDir := strings.NewReplacer("DIR", node.Dir())
	write(t, configFile(node), inDir.Replace(minimal))
	write(t, nodesFile(node), goodNodes)
	check := func(what string, status int, want string) {
		t.Helper()
		before := network(t, node.Namespace) + forwarding(t, node.Namespace)
		got := finish(t, weftd(t, node, nil, "--check"))
		if got.status != status || !strings.Contains(got.stdout+got.stderr, want) {
			t.Errorf("%s: exit status %d, %s%s; want %d, %s", what, got.status, got.stdout, got.stderr, status, want)
		}
		expectSame(t, "the node's network", before, network(t, node.Namespace)+forwarding(t, node.Namespace))
	}
	check("all is right", 0, "ok\n")
	write(t, nodesFile(node), strings.Replace(goodNodes, "10.244.2.0/24", "10.244.1.128/25", 1))
	run(t, node.Namespace, "ip", "addr", "add", "10.244.200.1/24", "dev", testnet.UnderlayLink)
	check("the list of nodes is wrong", 2, "overlaps 10.244.1.0/24 of node node1")
	check("the host is wrong too", 2, "10.244.200.0/24 on "+testnet.UnderlayLink)
	run(t, node.Namespace, "ip", "addr", "del", "10.244.200.1/24", "dev", testnet.UnderlayLink)
	write(t, nodesFile(node), goodNodes)
	wait := begin(t, weftd(t, node, nil))
	eventually(t, "weftd to forward", func() error {
		if got := weft(t, node, "status"); !strings.Contains(got.stdout, "node1, ready") {
			return errors.New(got.stdout + got.stderr)
		}
		return nil
	})
	check("beside a running one", 0, "ok\n")
	run(t, node.Namespace, "sh", "-c", "kill -TERM $(cat "+filepath.Join(node.RunDir(), "weftd.lock")+")")
	if got := wait(); got.status != 0 {
		t.Errorf("exit status %d: %s", got.status, got.stderr)
	}
}

func TestHelpAndVersionAreNoMistakes(t *testing.T) {
	t.Parallel()
	for flag, want := range map[string]string{"--help": "Usage: weftd [flags]", "-h": "Usage: weftd [flags]", "--version": "weftd "} {
		got := finish(t, exec.CommandContext(t.Context(), filepath.Join(binDir, "weftd"), flag))
		if got.status != 0 || got.stderr != "" || !strings.Contains(got.stdout, want) {
			t.Errorf("weftd %s: exit status %d, stdout %q, stderr %q", flag, got.status, got.stdout, got.stderr)
		}
	}
}

// everybodys returns the path of a program under test that others than root may run.
func everybodys(t *testing.T, program string) string {
	t.Helper()
	if err := os.Chmod(binDir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(binDir, program)
}

// mounted wraps a program so that it runs behind a mount that no other process sees.
func mounted(mount string) []string {
	return []string{"unshare", "--mount", "sh", "-c", "mount " + mount + ` && exec "$0" "$@"`}
}

// The error is one sentence, and weftd leaves nothing behind.
func TestMissingPrerequisiteIsReported(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		wrap    []string
		prepare func(t *testing.T, node *testnet.Node)
		status  int
		want    string
	}{
		{name: "not root", wrap: []string{"setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all"}, status: 2,
			prepare: func(t *testing.T, _ *testnet.Node) { everybodys(t, "weftd") },
			want:    "CAP_NET_ADMIN is missing; run weftd as root, or grant it NET_ADMIN"},
		{name: "no TUN driver", wrap: mounted("-t tmpfs none /dev/net"), status: 2,
			want: "this node can't run weftd: /dev/net/tun does not exist; load the module tun, or mount the host's device into the container"},
		{name: "another device in the TUN driver's place", wrap: mounted("--bind /dev/null /dev/net/tun"), status: 2,
			want: "this node can't run weftd: /dev/net/tun is not the TUN driver's device; create it with mknod /dev/net/tun c 10 200: "},
		{name: "no nft", wrap: []string{"env", "PATH=/nowhere"}, status: 2,
			want: "this node can't run weftd: the program nft is not found; install the package nftables: "},
		{name: "the device exists", status: 1,
			prepare: func(t *testing.T, node *testnet.Node) {
				run(t, node.Namespace, "ip", "tuntap", "add", "weft0", "mode", "tun")
				t.Cleanup(func() { _, _ = node.Exec(t.Context(), "ip", "link", "del", "weft0") })
			},
			want: "a device weft0 exists already, and is not weft's: remove it (ip link del weft0), or choose another tun.name"},
		{name: "runDir cannot be made", wrap: mounted("-t tmpfs -o ro none RUN/.."), status: 1,
			want: "make the run directory: mkdir RUN: read-only file system"},
		{name: "runDir is read-only", wrap: mounted("-t tmpfs -o ro none RUN"), status: 1, want: "RUN"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// A node for each: sysctls that weftd sets stay.
			node := newCluster(t, testnet.ClusterOptions{Nodes: 1, Configure: func(weft map[string]any) {
				// Of its own folder, so that it can be mounted over without the configuration.
				weft["runDir"] = filepath.Join(weft["runDir"].(string), "weft")
			}}).Nodes()[0]
			runDir := filepath.Join(node.RunDir(), "weft")
			if !strings.Contains(strings.Join(tt.wrap, " "), "RUN/..") {
				if err := os.MkdirAll(runDir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if tt.prepare != nil {
				tt.prepare(t, node)
			}
			inDir := strings.NewReplacer("RUN/..", node.RunDir(), "RUN", runDir, "CONF", filepath.Dir(conflist(node)))
			var wrap []string
			for _, word := range tt.wrap {
				wrap = append(wrap, inDir.Replace(word))
			}
			before, routing := network(t, node.Namespace), forwarding(t, node.Namespace)
			got := finish(t, weftd(t, node, wrap))

			_, sentence, told := cutLast("\n"+got.stderr, "\nweftd: ")
			want := inDir.Replace(tt.want)
			if got.status != tt.status || !told || !strings.Contains(sentence, want) || strings.Contains(got.stderr, "panic") {
				t.Errorf("exit status %d, want %d; stderr:\n%swant: %s", got.status, tt.status, got.stderr, want)
			}
			if tt.name == "the device exists" {
				run(t, node.Namespace, "nft", "list", "table", "inet", "weft")
			} else {
				expectSame(t, "the node's network", before, network(t, node.Namespace))
			}
			if tt.status == 2 {
				expectSame(t, "forwarding", routing, forwarding(t, node.Namespace))
				expectSame(t, "runDir", "", files(t, node.RunDir()))
			}
			if exists(conflist(node)) || exists(filepath.Join(runDir, "weftd.sock")) {
				t.Error("the conflist or the socket is left")
			}
		})
	}
}

// TestTakenPortsStopNothingElse: a port, socket or lock that another program holds delays
// only what needs it. weftd names the holder, and the guard stays.
func TestTakenPortsStopNothingElse(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node := cluster.Nodes()[0]
	protected := protection(t, node.Namespace)
	hold := func(network, address string) io.Closer {
		var held io.Closer
		err := node.Do(func() (err error) {
			if network == "udp" {
				held, err = net.ListenPacket(network, address)
			} else {
				held, err = net.Listen(network, address)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return held
	}
	if err := node.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	abstract := hold("unix", "@weftd") // any user may have it
	defer abstract.Close()
	metrics := hold("tcp", "127.0.0.1:9339")
	udp := hold("udp", "0.0.0.0:9338")
	wait := begin(t, weftd(t, node, nil))
	status := func(want ...string) {
		t.Helper()
		eventually(t, "weft status to say "+strings.Join(want, ", "), func() error {
			got := weft(t, node, "status")
			for _, w := range want {
				if !strings.Contains(got.stdout, w) {
					return fmt.Errorf("exit status %d, no %q in %s%s", got.status, w, got.stdout, got.stderr)
				}
			}
			return nil
		})
	}
	self := fmt.Sprintf("(pid %d, uid 0)", os.Getpid())
	status("NOT READY: port 9338 is held by ", self, "WARNING", "weftd does not serve at 127.0.0.1:9339")
	expectSame(t, "what protects pods", protected, protection(t, node.Namespace))

	udp.Close()
	status("node1, ready", "weftd does not serve at 127.0.0.1:9339: port 9339 is held by ", self)
	expectPings(t, pod1, pod2)

	metrics.Close()
	eventually(t, "weftd to serve metrics", func() error {
		_, err := node.Get(t.Context(), "/readyz")
		return err
	})
	eventually(t, "the warning to be over", func() error {
		if got := weft(t, node, "status"); strings.Contains(got.stdout, "WARNING") {
			return errors.New(got.stdout)
		}
		return nil
	})
	run(t, node.Namespace, "sh", "-c", "kill -TERM $(cat "+filepath.Join(node.RunDir(), "weftd.lock")+")")
	if got := wait(); got.status != 0 {
		t.Errorf("exit status %d: %s", got.status, got.stderr)
	}
}

func TestRefusedStartLeavesRunningWeftd(t *testing.T) {
	t.Parallel()
	cluster, pod1, pod2 := podsOnTwoNodes(t)
	node := cluster.Nodes()[0]
	state := func() string {
		var stamps strings.Builder
		for _, path := range []string{conflist(node), node.Socket()} {
			info, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			stamps.WriteString(path + " " + info.ModTime().String() + "\n")
		}
		return network(t, node.Namespace) + stamps.String() + logs(t, node)
	}
	before := state()
	for _, second := range []struct {
		name   string
		args   []string
		status int
	}{
		{"with a mistake in its flags", []string{"--tun-driver=wireguad"}, 2},
		{"for another node's name", []string{"--node=node9"}, 1},
		{"just so", nil, 1},
		{"on another port", []string{"--listen=0.0.0.0:9000"}, 1},
		{"on another port and device", []string{"--listen=0.0.0.0:9000", "--tun-name=weft1"}, 1},
	} {
		got := finish(t, weftd(t, node, nil, second.args...))
		if got.status != second.status || got.status == 1 && !strings.HasPrefix(got.stderr, "weftd: a weftd runs already (pid ") {
			t.Errorf("a second weftd %s: exit status %d, want %d: %s", second.name, got.status, second.status, got.stderr)
		}
		expectSame(t, "the node, by a second weftd "+second.name, before, state())
	}
	if got := weft(t, node, "status"); got.status != 0 {
		t.Errorf("weft status: %s", got.stderr)
	}
	expectPings(t, pod1, pod2)
}

// A weftd that was killed has left one.
func TestRefusedStartLeavesTheGuard(t *testing.T) {
	t.Parallel()
	node := startCluster(t, testnet.ClusterOptions{Nodes: 2}).Nodes()[0]
	node.Kill()
	before := network(t, node.Namespace)
	if got := finish(t, weftd(t, node, nil, "--node=node9")); got.status != 2 {
		t.Errorf("exit status %d: %s", got.status, got.stderr)
	}
	expectSame(t, "the node's network", before, network(t, node.Namespace))
	if !exists(conflist(node)) {
		t.Error("the conflist is gone")
	}
}
