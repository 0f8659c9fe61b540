package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"weft/internal/doctor"
	"weft/internal/testnet"
)

func TestDoctorPutsFaultsFirst(t *testing.T) {
	r := doctor.Report{Node: "node1", Result: doctor.Failed, Findings: []doctor.Finding{
		{Code: "guard", Result: doctor.Failed, Found: "the table is gone\x1b[2J", Remedy: "start weftd\nnow"},
		{Code: "clock", Result: doctor.Warning, Found: "not synchronised"},
		{Code: "networkd", Result: doctor.Skipped, Found: "does not run"},
		{Code: "network_manager", Result: doctor.Skipped, Found: "does not run"},
		{Code: "weftd", Result: doctor.Skipped, Found: "stopped"},
		{Code: "kernel", Result: doctor.OK, Found: "Linux 6.1"},
	}}
	var got strings.Builder
	if err := printDoctor(&got, r); err != nil {
		t.Fatal(err)
	}
	want := `node1: 1 check failed, 1 warning, 3 skipped, 1 ok
FAILED   guard: the table is gone�[2J
         start weftd now
WARNING  clock: not synchronised
skipped  networkd, network_manager: does not run
skipped  weftd: stopped
ok       kernel: Linux 6.1
`
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := printDoctor(fullDisk(t), r); err == nil {
		t.Error("a full disk was not noticed")
	}
}

// sick is a host on which weftd has never run, in a network namespace of its own.
type sick struct {
	dir  string
	args []string
}

func newSick(t *testing.T) *sick {
	t.Helper()
	testnet.InNewNamespace(t)
	h := &sick{dir: t.TempDir()}
	// Without IPv6, whose addresses and routes come later than their links.
	h.run(t, `for i in all default; do echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done
		ip link set lo up; ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up
		ip address add 192.168.77.1/24 dev eth0; ip route add default via 192.168.77.254`)
	if err := testnet.Wait(t.Context(), "the links to be up", func(context.Context) error {
		links, err := net.Interfaces() // in the test's namespace
		for _, l := range links {
			if l.Flags&net.FlagRunning == 0 {
				err = errors.Join(err, fmt.Errorf("%s is not running", l.Name))
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	h.write(t, "nodes.yaml", twoNodes[:strings.LastIndex(strings.TrimSpace(twoNodes), "\n")+1])
	h.write(t, "weft-cni", "")
	if err := os.Chmod(h.path("weft-cni"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, folder := range []string{"cni", "state", "run"} {
		if err := os.Mkdir(h.path(folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h.write(t, "weft.yaml", fmt.Sprintf(`node: node1
clusterCIDRs: [10.244.0.0/16]
encapsulation: vxlan
control: {file: %[1]s/nodes.yaml}
stateDir: %[1]s/state
runDir: %[1]s/run
cni: {confDir: %[1]s/cni, binDir: %[1]s, chain: []}
`, h.dir))
	h.args = []string{"doctor", "--config", h.path("weft.yaml")}
	return h
}

func (h *sick) path(name string) string { return filepath.Join(h.dir, name) }

func (h *sick) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(h.path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// run runs commands of a shell in the host's namespace.
func (h *sick) run(t *testing.T, commands string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-ec", commands)
	cmd.Env = append(os.Environ(), "DIR="+h.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", commands, err, out)
	}
}

// faults are such that weftd would not start, or no pod would reach another one.
var faults = []struct {
	name  string
	makes string   // commands
	flags []string // of weft doctor
	head  string   // what the first five lines say
}{
	{name: "FORWARD drops by iptables", makes: "iptables-nft -P FORWARD DROP", head: "host_forward_filter: iptables chain FORWARD drops packets"},
	{name: "FORWARD drops by nftables", makes: `nft add table inet f; nft 'add chain inet f forward { type filter hook forward priority 0; policy drop; }'`,
		head: "host_forward_filter: nftables chain inet f forward (hook forward) drops packets"},
	{name: "INPUT drops", makes: "iptables-nft -P INPUT DROP", head: "host_input_filter: iptables chain INPUT drops packets"},
	{name: "a rule before weft's", makes: "ip route add 10.244.0.0/16 dev far table 100; ip rule add pref 100 lookup 100", head: "host_routing_rule: the routing rule of priority 100"},
	{name: "a VPN's default route before weft's", makes: "ip route add default dev far table 220; ip rule add pref 220 lookup 220", head: "host_routing_rule: the routing rule of priority 220"},
	{name: "a foreign route", makes: "ip route add 10.244.2.0/24 via 192.168.77.9", head: "foreign_route: a route of another program takes packets to pods: 10.244.2.0/24 via 192.168.77.9 dev eth0"},
	{name: "a network in the cluster CIDRs", makes: "ip address add 10.244.3.1/24 dev far", head: "cluster_overlap: the local network 10.244.3.0/24 on far overlaps"},
	{name: "a VXLAN device at the port", makes: "ip link add flannel.1 type vxlan id 1 dstport 9338 local 192.168.77.1; ip link set flannel.1 up",
		head: "udp_port: UDP port 0.0.0.0:9338 is taken by the VXLAN device flannel.1"},
	{name: "a foreign conflist first", makes: `echo '{"cniVersion":"1.0.0","name":"old","plugins":[{"type":"bridge"}]}' >$DIR/cni/05-old.conflist`,
		head: "cni_network: the container runtime uses DIR/cni/05-old.conflist"},
	{name: "tun.mtu too large", flags: []string{"--tun-mtu=1500"}, head: "mtu: packets of the overlay's MTU 1500 don't fit eth0"},
	{name: "an uplink too small for IPv6", makes: "ip link set eth0 mtu 1300", flags: []string{"--cluster-cidrs=10.244.0.0/16", "--cluster-cidrs=fd00:244::/32"}, head: "mtu: the overlay's MTU 1250 is too small for IPv6"},
	{name: "no uplink", makes: "ip address flush dev eth0", head: "mtu: the uplink is not known"},
	{name: "a list without this node", flags: []string{"--node=node7"}, head: `node_list: DIR/nodes.yaml: this node, "node7", is not in the list of nodes`},
	{name: "a list that others change", makes: "chmod o+w $DIR/nodes.yaml", head: "control_source: the list of nodes is not trusted: DIR/nodes.yaml: every user can write to it"},
	{name: "no list", makes: "rm $DIR/nodes.yaml", head: "control_source: DIR/nodes.yaml: file does not exist"},
	{name: "etcd unreachable", makes: `sed -i 's|^control: .*|control: {etcd: {endpoints: ["http://127.0.0.1:1"]}}|' $DIR/weft.yaml`, head: "control_source: etcd: list the nodes: "},
	{name: "a configuration that others change", makes: "chmod o+w $DIR/weft.yaml", head: "config_trust: DIR/weft.yaml: every user can write to it"},
	{name: "a wrong key of the configuration", makes: "echo 'colour: red' >>$DIR/weft.yaml", head: "config: DIR/weft.yaml:8: colour: unknown key"},
	{name: "no key", flags: []string{"--encapsulation=sealed", "--key-file=DIR/node.key"}, head: "node_key: DIR/node.key: there is no key"},
	{name: "a key that others read", makes: "touch $DIR/node.key; chmod 644 $DIR/node.key", flags: []string{"--encapsulation=sealed", "--key-file=DIR/node.key"}, head: "node_key: DIR/node.key: others may read or write it"},
	{name: "no CNI plugin", makes: "rm $DIR/weft-cni", head: "cni_plugin: the CNI plugin is missing"},
	{name: "a chained plugin that is missing", flags: []string{"--cni-chain=portmap"}, head: "cni_chain: the CNI plugin portmap can't be used, so pods have no hostPorts"},
	{name: "strict rp_filter", makes: "echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter; echo 1 >/proc/sys/net/ipv4/conf/eth0/rp_filter", head: "rp_filter: strict rp_filter (1) on eth0"},
}

// Doctor names the true cause of each fault in its first five lines, before weftd has ever run,
// and changes nothing.
func TestDoctorNamesFaults(t *testing.T) {
	for _, tt := range faults {
		t.Run(tt.name, func(t *testing.T) {
			h := newSick(t)
			if code, out, _ := asWeft(t, h.args...); code != 0 || strings.Contains(out, "FAILED") {
				t.Fatalf("before the fault: exit status %d\n%s", code, out)
			}
			h.run(t, tt.makes)
			h.expect(t, tt.head, tt.flags...)
		})
	}
}

// expect runs doctor and looks at its first five lines.
func (h *sick) expect(t *testing.T, head string, flags ...string) {
	t.Helper()
	here := func(text string) string { return strings.ReplaceAll(text, "DIR", h.dir) }
	args := append([]string{}, h.args...)
	for _, flag := range flags {
		args = append(args, here(flag))
	}
	state := func() string {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "ip -d link; ip address; ip route show table all; ip rule; nft list ruleset; cd "+h.dir+" && ls -lR").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	before := state()
	code, out, stderr := asWeft(t, args...)
	lines := strings.SplitAfterN(out, "\n", 6)
	first := strings.Join(lines[:min(5, len(lines))], "")
	if !strings.Contains(first, here(head)) {
		t.Errorf("the first five lines do not say %q:\n%s%s", here(head), out, stderr)
	}
	if n := strings.Count(out, "FAILED"); n > 1 {
		t.Errorf("%d checks failed for one fault:\n%s", n, out)
	}
	if failed := strings.Contains(out, "FAILED"); failed != (code == 1) || !failed && code != 0 {
		t.Errorf("exit status %d\n%s", code, out)
	}
	if diff := cmp.Diff(before, state()); diff != "" {
		t.Errorf("doctor changed the host (-before +after):\n%s", diff)
	}
}

// A program that has the port is named with its process number.
func TestDoctorNamesTheOwnerOfThePort(t *testing.T) {
	h := newSick(t)
	conn, err := net.ListenPacket("udp4", "0.0.0.0:9338")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	h.expect(t, fmt.Sprintf("udp_port: UDP port 0.0.0.0:9338 is taken by weft.test (pid %d)", os.Getpid()))
}

func TestDoctorNamesAFullDisk(t *testing.T) {
	h := newSick(t)
	for _, tt := range []struct{ folder, head string }{
		{"state", "state_dir: pods can't be added or removed, because of stateDir: the disk with DIR/state is full"},
		{"run", "run_dir: weftd can't describe this node to weft-cni, because of runDir: the disk with DIR/run is full"},
	} {
		if err := unix.Mount("weft-test", h.path(tt.folder), "tmpfs", 0, "size=64k"); err != nil {
			t.Fatal(err)
		}
		unmount := func() { _ = unix.Unmount(h.path(tt.folder), unix.MNT_DETACH) }
		t.Cleanup(unmount)
		h.expect(t, tt.head)
		unmount()
	}
}

func TestDoctorForPrograms(t *testing.T) {
	h := newSick(t)
	code, out, stderr := asWeft(t, append(h.args, "-o", "json", "--tun-mtu=1500")...)
	var r doctor.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if code != 1 || r.Result != doctor.Failed || r.Node != "node1" || r.Findings[0].Code != "mtu" || r.Findings[0].Remedy == "" || stderr != "weft: 1 check failed\n" {
		t.Errorf("exit status %d, %q\n%s", code, stderr, out)
	}
	if code, _, stderr := asWeft(t, "doctor", "--colour"); code != 2 {
		t.Errorf("exit status %d of a wrong flag: %s", code, stderr)
	}
}
