package config

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"weft/internal/advertise"
	"weft/internal/marks"
	"weft/internal/strict"
	"weft/internal/strict/yamltree"
)

// ipTypes lets cmp look into netip's types.
var ipTypes = cmp.Options{
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b advertise.Rule) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

// example is what deploy/weft.yaml says.
var example = Config{
	Node:          "node1",
	ClusterCIDRs:  []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/48")},
	Encapsulation: EncapsulationSealed,
	KeyFile:       "/etc/weft/node.key",
	Listen:        netip.MustParseAddrPort("0.0.0.0:9338"),
	Control:       Control{Source: SourceFile, File: "/etc/weft/nodes.yaml", TrustKeyChange: TrustAlways, Etcd: Etcd{Prefix: "/weft", MaskIPv4: 24, MaskIPv6: 64}},
	TUN:           TUN{Driver: DriverSuperpacket, Name: "weft0"},
	UDP:           UDP{GSO: GSOAuto},
	VXLAN:         VXLAN{VNI: 1},
	StateDir:      "/var/lib/weft",
	RunDir:        "/run/weft",
	IPAM:          IPAM{Cooldown: 2 * time.Minute},
	CNI:           CNI{ConfDir: "/etc/cni/net.d", BinDir: "/opt/cni/bin", Chain: []string{"portmap", "bandwidth", "tuning"}, Name: "weft"},
	Host:          Host{MarkMask: marks.DefaultMask},
	Egress:        Egress{RandomPorts: true},
	Echo:          Echo{Port: 9340},
	Metrics:       Metrics{Listen: netip.MustParseAddrPort("127.0.0.1:9339"), Peers: 100, Page: PageAuto},
}

const minimal = "node: node1\nclusterCIDRs: [10.244.0.0/16, 'fd00:244::/48']\n"

// load loads a file with the given content; its path in errors is just "weft.yaml".
func load(t *testing.T, content string, args, environ []string) (Config, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("weft.yaml", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return loadArgs(t, append([]string{"--config", "weft.yaml"}, args...), environ)
}

func loadArgs(t *testing.T, args, environ []string) (Config, error) {
	t.Helper()
	flags := pflag.NewFlagSet("weftd", pflag.ContinueOnError)
	AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return Load(flags, environ)
}

func wantConfig(t *testing.T, got Config, err error, want Config) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, ipTypes); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
}

func TestExampleParses(t *testing.T) {
	c, err := loadArgs(t, []string{"--config", "../../deploy/weft.yaml"}, nil)
	wantConfig(t, c, err, example)
}

func TestExampleShowsEveryKey(t *testing.T) {
	data, err := os.ReadFile("../../deploy/weft.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var problems strict.Problems
	shown := make(map[string]bool)
	flatten(yamltree.Parse("weft.yaml", data, &problems), func(path string, _ setting) { shown[path] = true }, &problems)
	for _, k := range keys {
		// Those of other control sources stand there as a comment.
		name := k.path[strings.LastIndexByte(k.path, '.')+1:]
		if source, ok := sourceOf(k.path); ok && source != SourceFile || ofRegistries[k.path] != "" {
			shown[k.path] = strings.Contains(string(data), "# "+name+": ") || strings.Contains(string(data), "#   "+name+": ")
		}
		if !shown[k.path] {
			t.Errorf("%s is not in the example", k.path)
		}
	}
}

func TestWhatIsNotWrittenHasItsDefault(t *testing.T) {
	c, err := load(t, minimal, nil, nil)
	wantConfig(t, c, err, example)
}

func TestNodeIsTheHostNameByDefault(t *testing.T) {
	host, err := os.Hostname()
	if err != nil || strict.CheckNodeName(strings.ToLower(host)) != nil {
		t.Skipf("host name %q, %v", host, err)
	}
	c, err := load(t, "clusterCIDRs: [10.244.0.0/16]\n", nil, nil)
	if err != nil || c.Node != strings.ToLower(host) {
		t.Errorf("node %q, %v; want %q", c.Node, err, host)
	}
}

func TestEveryKeyIsAFlagAndAVariable(t *testing.T) {
	want := example
	want.Node = "node2"
	want.ClusterCIDRs = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.2.0.0/16")}
	want.Encapsulation, want.KeyFile = EncapsulationVXLAN, "/k"
	want.Listen = netip.MustParseAddrPort("[::]:4790")
	want.Control.File = "/n"
	want.TUN = TUN{Driver: DriverWater, Name: "tun7", Lanes: 16, MTU: 1280}
	want.VXLAN.VNI = 1<<24 - 1
	want.UDP.GSO = GSOOff
	want.StateDir, want.RunDir = "/s", "/r"
	want.IPAM = IPAM{Cooldown: 0, Reserved: []netip.Prefix{netip.MustParsePrefix("10.1.0.9/32"), netip.MustParsePrefix("10.2.0.0/28")}}
	want.Host = Host{MarkMask: 0x300, AcceptForward: true, AcceptForwardChain: "inet filter forward"}
	want.Guard, want.Egress = Guard{Trusted: []string{"wg0", "docker0"}}, Egress{}
	want.CNI = CNI{ConfDir: "/c", BinDir: "/b", Chain: []string{"firewall", "portmap"}, Name: "pods",
		Extra: []CNIEntry{{"mesh", `{"type":"mesh","a":[1,true]}`}, {"mesh", `{"type":"mesh"}`}}}
	want.Metrics, want.Echo = Metrics{Peers: 7, Page: PageOff}, Echo{Port: 65535}
	wantEveryKey(t, want, map[string]string{"control-file": "/n"})
	want.Control.File = "/etc/weft/nodes.yaml"
	want.Advertise, _ = advertise.Parse("interface=eth1")
	want.Addresses = []netip.Addr{netip.MustParseAddr("192.168.78.1"), netip.MustParseAddr("fd00:78::1")}
	want.Control.TrustKeyChange = TrustNever

	want.Control.Source = SourceKubernetes
	want.Control.Kubernetes = Kubernetes{Kubeconfig: "/kc", FlannelCompat: true}
	want.Listen = netip.MustParseAddrPort("[::]:8472")
	wantEveryKey(t, want, map[string]string{"listen": "[::]:8472", "advertise": "interface=eth1", "addresses": "192.168.78.1,fd00:78::1", "control-trust-key-change": "never", "control-kubernetes-kubeconfig": "/kc", "control-kubernetes-flannel-compat": "true"})

	want.Control.Source, want.Control.Kubernetes = SourceEtcd, Kubernetes{}
	want.Listen = netip.MustParseAddrPort("[::]:4790")
	want.Control.Etcd = Etcd{Endpoints: []string{"https://192.168.77.101:2379", "https://[fd00::2]:2379"}, Prefix: "/w/1",
		CAFile: "/ca", CertFile: "/cert", KeyFile: "/key", Username: "u", PasswordFile: "/p", MaskIPv4: 20, MaskIPv6: 112}
	want.ClusterCIDRs = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.2.0.0/16")}
	wantEveryKey(t, want, map[string]string{"advertise": "interface=eth1", "addresses": "192.168.78.1,fd00:78::1", "control-trust-key-change": "never", "control-etcd-endpoints": "https://192.168.77.101:2379,https://[fd00::2]:2379/",
		"control-etcd-prefix": "/w/1", "control-etcd-ca-file": "/ca", "control-etcd-cert-file": "/cert", "control-etcd-key-file": "/key",
		"control-etcd-username": "u", "control-etcd-password-file": "/p", "control-etcd-mask-ipv4": "20", "control-etcd-mask-ipv6": "112"})
}

// wantEveryKey tests all keys but those of other control sources; values has those of one.
func wantEveryKey(t *testing.T, want Config, control map[string]string) {
	t.Helper()
	values := map[string]string{
		"node": "node2", "cluster-cidrs": "10.1.0.0/16, 10.2.0.0/16", "encapsulation": "vxlan", "key-file": "/k", "listen": "[::]:4790",
		"tun-driver": "water", "tun-name": "tun7", "tun-lanes": "16", "tun-mtu": "1280",
		"udp-gso": "off", "vxlan-vni": "16777215", "state-dir": "/s/", "run-dir": "/r", "cni-conf-dir": "/c", "cni-bin-dir": "/b", "cni-chain": "firewall, portmap", "cni-extra": `{"type": "mesh", "a": [1, true]}, {"type": "mesh"}`, "cni-name": "pods",
		"ipam-cooldown": "0s", "ipam-reserved": "10.1.0.9,10.2.0.0/28", "host-mark-mask": "0x300", "guard-trusted": "wg0,docker0", "egress-random-ports": "false", "host-accept-forward": "true", "host-accept-forward-chain": "inet filter forward", "metrics-listen": "", "metrics-peers": "7", "metrics-page": "off", "echo-port": "65535",
	}
	maps.Copy(values, control)
	var args, environ []string
	for _, k := range keys {
		text, ok := values[k.flag()]
		if source, of := sourceOf(k.path); !ok && (of && source != want.Control.Source || ofRegistries[k.path] != "") {
			continue
		}
		if !ok {
			t.Fatalf("flag --%s is not tested", k.flag())
		}
		args = append(args, "--"+k.flag()+"="+text)
		environ = append(environ, "WEFT_"+strings.ToUpper(strings.ReplaceAll(k.flag(), "-", "_"))+"="+text)
	}
	t.Run("flags, "+string(want.Control.Source), func(t *testing.T) {
		c, err := load(t, minimal, args, nil)
		wantConfig(t, c, err, want)
	})
	t.Run("variables, "+string(want.Control.Source), func(t *testing.T) {
		c, err := load(t, minimal, nil, environ)
		wantConfig(t, c, err, want)
	})
}

func TestFlagGoesBeforeVariableGoesBeforeFile(t *testing.T) {
	c, err := load(t, minimal+"tun: {name: file0}\n", nil, []string{"WEFT_TUN_NAME=env0"})
	if err != nil || c.TUN.Name != "env0" {
		t.Errorf("variable and file: %q, %v", c.TUN.Name, err)
	}
	c, err = load(t, minimal+"tun: {name: file0}\n", []string{"--tun-name", "flag0"}, []string{"WEFT_TUN_NAME=env0"})
	if err != nil || c.TUN.Name != "flag0" {
		t.Errorf("flag, variable and file: %q, %v", c.TUN.Name, err)
	}
}

func TestRepeatedListFlagAdds(t *testing.T) {
	c, err := load(t, minimal, []string{"--cluster-cidrs=10.1.0.0/16", "--cluster-cidrs=10.2.0.0/16"}, nil)
	if err != nil || len(c.ClusterCIDRs) != 2 {
		t.Errorf("%v, %v", c.ClusterCIDRs, err)
	}
}

func TestTheChainMayBeEmpty(t *testing.T) {
	for name, tt := range map[string]struct {
		file          string
		args, environ []string
	}{
		"file":     {file: "cni: {chain: []}\n"},
		"flag":     {args: []string{"--cni-chain="}},
		"variable": {environ: []string{"WEFT_CNI_CHAIN="}},
	} {
		t.Run(name, func(t *testing.T) {
			want := example
			want.CNI.Chain = nil
			c, err := load(t, minimal+tt.file, tt.args, tt.environ)
			wantConfig(t, c, err, want)
		})
	}
}

// Entries of other plugins reach the conflist as they are written, with values of any kind.
func TestExtraEntriesKeepTheirKeys(t *testing.T) {
	want := example
	want.CNI.Extra = []CNIEntry{
		{"istio-cni", `{"kubernetes":{"exclude":["a","b"],"kubeconfig":"/k"},"type":"istio-cni"}`},
		{"sbr", `{"deep":{"list":[{"x":-1.5}]},"number":7,"off":false,"text":"7","type":"sbr","word":"on"}`},
	}
	c, err := load(t, minimal+`cni:
  extra:
  - type: istio-cni
    kubernetes: {kubeconfig: /k, exclude: [a, b]}
  - {type: sbr, number: 7, off: false, text: "7", word: on, deep: {list: [{x: -1.5}]}}
`, nil, nil)
	wantConfig(t, c, err, want)
}

func TestFileIsNamedByVariable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "other.yaml")
	if err := os.WriteFile(path, []byte(minimal), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := loadArgs(t, nil, []string{"WEFT_CONFIG=" + path})
	wantConfig(t, c, err, example)
}

func TestAbsentFile(t *testing.T) {
	if _, err := os.Stat(DefaultPath); err == nil {
		t.Skipf("this host has %s", DefaultPath)
	}
	tests := []struct {
		name    string
		args    []string
		wantErr string
	}{
		{"is fine if flags say enough", []string{"--cluster-cidrs=10.244.0.0/16", "--node=node1"}, ""},
		{"is one problem if they don't", nil,
			"/etc/weft/weft.yaml: the file does not exist; write it, name another one with --config, or give --cluster-cidrs"},
		{"beside what else is wrong", []string{"--listen=192.168.77.1", "--node=node1"},
			"--listen: 192.168.77.1 has no port; write it like 192.168.77.1:9338\n" +
				"/etc/weft/weft.yaml: the file does not exist; write it, name another one with --config, or give --cluster-cidrs"},
		{"is another matter than an unreadable one", []string{"--config=/proc/self", "--node=node1"},
			"read the configuration: /proc/self: not a regular file"},
		{"is never fine if it was named", []string{"--config=/no/weft.yaml", "--cluster-cidrs=10.244.0.0/16", "--node=node1"},
			"/no/weft.yaml: the file does not exist; write it, or name another one with --config"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := loadArgs(t, tt.args, nil)
			wantError(t, err, tt.wantErr)
		})
	}
}

func TestLanesFollowTheCPUs(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	for _, tt := range []struct{ cpus, lanes, want int }{{2, 0, 2}, {8, 0, 4}, {8, 6, 6}, {1, 16, 16}} {
		runtime.GOMAXPROCS(tt.cpus)
		if got := (Config{TUN: TUN{Lanes: tt.lanes}}).Lanes(); got != tt.want {
			t.Errorf("%d CPUs, lanes: %d: %d lanes; want %d", tt.cpus, tt.lanes, got, tt.want)
		}
	}
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if got != want {
		t.Errorf("error:\n%s\nwant:\n%s", got, want)
	}
}

// TestFlagsNameFilesFromHere: on the command line a path may be relative, unlike in the file.
func TestFlagsNameFilesFromHere(t *testing.T) {
	c, err := load(t, minimal+"control: {etcd: {endpoints: ['https://a:1']}}\n", []string{"--control-etcd-cert-file=admin.pem", "--control-etcd-key-file=../admin-key.pem", "--control-etcd-ca-file=/ca"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Getwd() // load's
	if err != nil {
		t.Fatal(err)
	}
	if e := c.Control.Etcd; e.CertFile != filepath.Join(dir, "admin.pem") || e.KeyFile != filepath.Join(filepath.Dir(dir), "admin-key.pem") || e.CAFile != "/ca" {
		t.Errorf("%+v", e)
	}
}

func TestSmallMTUWithoutIPv6(t *testing.T) {
	for _, mtu := range []int{576, 1220} {
		c, err := load(t, fmt.Sprintf("node: node1\nclusterCIDRs: [10.244.0.0/16]\ntun: {mtu: %d}\n", mtu), nil, nil)
		if err != nil || c.TUN.MTU != mtu {
			t.Errorf("tun.mtu %d is read as %d, %v", mtu, c.TUN.MTU, err)
		}
	}
}

func TestOnlyThisHostReadsThePageUnlessOneSaysSo(t *testing.T) {
	for _, tt := range []struct {
		listen string
		page   Page
		want   bool
	}{
		{"127.0.0.1:9339", PageAuto, true},
		{"[::1]:9339", PageAuto, true},
		{"0.0.0.0:9339", PageAuto, false},
		{"192.168.77.1:9339", PageAuto, false},
		{"0.0.0.0:9339", PageOn, true},
		{"127.0.0.1:9339", PageOff, false},
	} {
		m := Metrics{Listen: netip.MustParseAddrPort(tt.listen), Page: tt.page}
		if got := m.ServesPage(); got != tt.want {
			t.Errorf("listen %s, page %s: served: %v", tt.listen, tt.page, got)
		}
	}
}
