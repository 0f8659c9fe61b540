package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/internal/testnet"
	"weft/peer"
)

const (
	// Where Debian has the plugin that flannel's own one calls.
	bridgePlugin = "/usr/lib/cni/bridge"

	// The file in which flanneld describes the network to its plugin.
	subnetFile = "subnet.env"

	// Where flanneld says that it is ready.
	healthPort = "8471"
)

// family is how a flannel of one family is set up. Patterns take a node's number.
type family struct {
	netConf  string // its part of net-conf.json
	option   string // of ip(8)
	device   string // flanneld's
	variable string // what those in subnetFile begin with
	listen   string // weftd's
	address  string // pattern of a node's address
	podCIDR  string // pattern
	gateway  string // pattern of a node's address behind the others' devices
}

var (
	flannelIPv4 = family{
		netConf: `"Network": "10.244.0.0/16"`, option: "-4", device: "flannel.1", variable: "FLANNEL_", listen: "0.0.0.0:8472",
		address: "192.168.77.%d", podCIDR: "10.244.%d.0/24", gateway: "10.244.%d.0",
	}
	flannelIPv6 = family{
		netConf: `"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:244::/32"`, option: "-6", device: "flannel-v6.1",
		variable: "FLANNEL_IPV6_", listen: "[::]:8472",
		address: "fd00:77::%d", podCIDR: "fd00:244:0:%d::/64", gateway: "fd00:244:0:%d::",
	}
)

// flannelRig is a cluster in whose nodes either flanneld runs or weftd.
type flannelRig struct {
	*Weft
	family
	net   *testnet.Net
	files string // where flanneld's configuration is
}

func newFlannelRig(t *testing.T, f family, nodes int) *flannelRig {
	t.Helper()
	if _, err := os.Stat(filepath.Join(kubernetesPrograms, "flanneld")); err != nil {
		t.Fatalf("run this by `make test-kubernetes`: %v", err)
	}
	r := &flannelRig{family: f, net: newNet(t), files: t.TempDir()}
	var err error
	r.Weft, err = NewWeft(t.Context(), r.net, testnet.ClusterOptions{
		Nodes:     nodes,
		Underlay6: f == flannelIPv6,
		// A card segments what flannel's device leaves to it; a veth that says it could would
		// hand over whole super-packets (docs/operations/kernel-vxlan.md).
		Wire: testnet.Wire{Offloads: testnet.NoTunnel},
		Configure: func(weft map[string]any) {
			weft["listen"] = f.listen
			if control, ok := weft["control"].(map[string]any)["kubernetes"].(map[string]any); ok { // it has a token
				control["flannelCompat"] = true
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	server, err := r.net.AddAPIServer(t.Context(), r.Cluster.Segment, testnet.APIServerOptions{BinDir: kubernetesPrograms})
	if err != nil {
		t.Fatal(err)
	}
	check(t, r.Permit(t.Context(), server, shippedManifests))
	if err := r.Admin.ApplyYAML(t.Context(), allowFlannel); err != nil {
		t.Fatal(err)
	}
	for number, node := range r.Cluster.Nodes() {
		makeNode(t, r.Weft, node, fmt.Sprintf(f.podCIDR, number+1))
	}
	return r
}

// allowFlannel is the part of flannel's own manifest that it needs outside a pod.
const allowFlannel = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: flannel}
rules:
- {apiGroups: [""], resources: [nodes], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [nodes/status], verbs: [patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: flannel}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: flannel}
subjects:
- {kind: User, name: flannel}
`

// startWeft starts weftd on a node that has a Node and is not flannel's.
func (r *flannelRig) startWeft(t *testing.T, n *testnet.Node) {
	t.Helper()
	check(t, r.GiveToken(t.Context(), n.Entry().Name))
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (r *flannelRig) annotations(t *testing.T, node string) map[string]string {
	t.Helper()
	n, err := r.Admin.CoreV1().Nodes().Get(t.Context(), node, meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return n.Annotations
}

// addPod has weft-cni wire a pod.
func (r *flannelRig) addPod(t *testing.T, n *testnet.Node, name string) *testnet.Pod {
	t.Helper()
	pod, err := n.AddPod(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// flannelNode is a node on which flanneld runs.
type flannelNode struct {
	*testnet.Node
	family
	flanneld *testnet.Service
	net      *testnet.Net
	pods     map[string]*testnet.Pod
}

// newFlannel prepares flanneld as flannel's own manifest does, and starts it not yet.
func (r *flannelRig) newFlannel(t *testing.T, n *testnet.Node) *flannelNode {
	t.Helper()
	kubeconfig, err := r.Server.Kubeconfig("flannel")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(r.files, "net-conf.json")
	text := fmt.Sprintf(`{%s, "Backend": {"Type": "vxlan", "VNI": 1, "Port": 8472}}`, r.netConf)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	flanneld, err := filepath.Abs(filepath.Join(kubernetesPrograms, "flanneld"))
	if err != nil {
		t.Fatal(err)
	}
	f := &flannelNode{Node: n, family: r.family, net: r.net, pods: make(map[string]*testnet.Pod)}
	f.flanneld = n.AddService("flanneld", f.ready, "env", "NODE_NAME="+n.Entry().Name, flanneld,
		"--kube-subnet-mgr", "--kubeconfig-file="+kubeconfig, "--net-config-path="+config,
		"--subnet-file="+filepath.Join(n.Dir(), subnetFile), "--iface="+testnet.UnderlayLink, "--ip-masq",
		"--healthz-ip=127.0.0.1", "--healthz-port="+healthPort, "--v=2")
	return f
}

func (r *flannelRig) startFlannel(t *testing.T, n *testnet.Node) *flannelNode {
	t.Helper()
	f := r.newFlannel(t, n)
	f.start(t)
	return f
}

func (f *flannelNode) start(t *testing.T) {
	t.Helper()
	if err := f.flanneld.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (f *flannelNode) ready(ctx context.Context) error {
	out, err := f.Exec(ctx, "busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:"+healthPort+"/readyz")
	if err == nil && out != "flanneld is ready" {
		err = errors.New(out)
	}
	return err
}

// leave removes flannel from a node as docs/operations/flannel.md describes. The node's pods are
// gone then.
func (f *flannelNode) leave(t *testing.T) {
	t.Helper()
	for name := range f.pods {
		f.plugin(t, "DEL", name)
	}
	if err := f.flanneld.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, link := range []string{"cni0", f.device} {
		if _, err := f.Exec(t.Context(), "ip", "link", "delete", link); err != nil {
			t.Fatal(err)
		}
	}
}

// addPod wires a pod as flannel does.
func (f *flannelNode) addPod(t *testing.T, name string) *testnet.Pod {
	t.Helper()
	ns, err := f.net.AddNamespace(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	f.pods[name] = &testnet.Pod{Namespace: ns, PodName: name, Node: f.Node}
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	if out := f.plugin(t, "ADD", name); json.Unmarshal(out, &result) != nil || len(result.IPs) != 1 {
		t.Fatalf("the plugin's result: %s", out)
	}
	f.pods[name].Addrs = []netip.Addr{result.IPs[0].Address.Addr()}
	return f.pods[name]
}

// plugin calls the bridge plugin for a pod with what flannel's own plugin makes of flannel's
// conflist and the file of flanneld.
func (f *flannelNode) plugin(t *testing.T, command, pod string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(f.Dir(), subnetFile))
	if err != nil {
		t.Fatal(err)
	}
	env := make(map[string]string)
	for line := range strings.Lines(string(content)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		env[key] = value
	}
	subnet, err := netip.ParsePrefix(env[f.variable+"SUBNET"])
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{
		"cniVersion": "0.3.1", "name": "cbr0", "type": "bridge",
		"hairpinMode": true, "isDefaultGateway": true, "isGateway": true,
		"ipMasq": env["FLANNEL_IPMASQ"] != "true", "mtu": json.Number(env["FLANNEL_MTU"]),
		"ipam": map[string]any{
			"type": "host-local", "dataDir": filepath.Join(f.Dir(), "host-local"),
			"ranges": []any{[]any{map[string]any{"subnet": subnet.Masked()}}},
			"routes": []any{map[string]any{"dst": env[f.variable+"NETWORK"]}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ns := f.pods[pod].Namespace
	cmd := f.Command(t.Context(), bridgePlugin)
	cmd.Stdin = bytes.NewReader(config)
	cmd.Env = append(cmd.Env, "CNI_COMMAND="+command, "CNI_CONTAINERID="+ns.Name(), "CNI_NETNS="+ns.Path(),
		"CNI_IFNAME="+testnet.PodLink, "CNI_PATH="+filepath.Dir(bridgePlugin))
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s of %s: %v: %s", command, pod, err, out)
	}
	return out
}

// awaitEntries waits until flannel sends to a node of weft's, or does so no more.
func (f *flannelNode) awaitEntries(t *testing.T, number int, wanted bool) {
	t.Helper()
	gateway, mac := fmt.Sprintf(f.gateway, number), peer.DeriveMAC(fmt.Sprintf("node%d", number)).String()
	entries := []struct{ command, entry string }{
		{"ip " + f.option + " route show " + fmt.Sprintf(f.podCIDR, number), "via " + gateway + " dev " + f.device},
		{"ip neigh show " + gateway + " dev " + f.device, "lladdr " + mac + " PERMANENT"},
		{"bridge fdb show dev " + f.device, mac + " dst " + fmt.Sprintf(f.address, number)},
	}
	err := waitALittle(t.Context(), "flannel's entries", func(ctx context.Context) error {
		for _, e := range entries {
			fields := strings.Fields(e.command)
			out, err := f.Exec(ctx, fields[0], fields[1:]...)
			if err != nil {
				return err
			}
			if strings.Contains(out, e.entry) != wanted {
				return fmt.Errorf("%s: %q; %q is there: %v", e.command, out, e.entry, !wanted)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", f.Entry().Name, err)
	}
}
