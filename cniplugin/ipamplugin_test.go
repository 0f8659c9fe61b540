package cniplugin

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"weft/internal/nodefile"
)

// ipamConf is a main plugin's configuration with weft-ipam in it.
func (n *node) ipamConf(section map[string]any) map[string]any {
	conf := n.conf("1.1.0")
	conf["type"], conf["name"] = "bridge", "side"
	conf["ipam"] = section
	section["type"] = IPAMType
	return conf
}

func (n *node) ipamCall(t *testing.T, f func(*skel.CmdArgs) error, conf map[string]any, containerID string) (*types100.Result, error) {
	t.Helper()
	args := n.args(containerID, "/proc/self/ns/net")
	args.StdinData = encode(t, conf)
	if err := n.call(f, args); err != nil {
		return nil, err
	}
	if n.out.Len() == 0 {
		return nil, nil
	}
	return n.printed(t), nil
}

func ipsOf(r *types100.Result) []string {
	var texts []string
	for _, ip := range r.IPs {
		texts = append(texts, ip.Address.String()+" by "+ip.Gateway.String())
	}
	return texts
}

func TestOtherMainPluginsGetTheNodesAddresses(t *testing.T) {
	n := newNode(t, families["dual stack"]...)
	f := n.plugin.IPAMFuncs()
	conf := n.ipamConf(map[string]any{"routes": []any{map[string]any{"dst": "0.0.0.0/0"}}})
	want := []string{"10.244.1.2/24 by 10.244.1.1", "fd00:244:1::2/64 by fd00:244:1::1"}
	for range 2 { // the main plugin was killed, and asks again
		result, err := n.ipamCall(t, f.Add, conf, "pod")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, ipsOf(result)); diff != "" || len(result.Routes) != 1 || len(result.Interfaces) != 0 {
			t.Errorf("%+v\n%s", result, diff)
		}
	}
	conf["prevResult"] = json.RawMessage(n.out.Bytes())
	if _, err := n.ipamCall(t, f.Check, conf, "pod"); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	conf["prevResult"] = map[string]any{"cniVersion": "1.1.0", "ips": []any{}}
	_, err := n.ipamCall(t, f.Check, conf, "pod")
	requireCode(t, err, CodeIncomplete)
	delete(conf, "prevResult")
	for range 2 {
		if _, err := n.ipamCall(t, f.Del, conf, "pod"); err != nil {
			t.Fatal(err)
		}
	}
	_, err = n.ipamCall(t, f.Check, conf, "pod")
	requireCode(t, err, CodeIncomplete)
}

func TestNoPodGetsTheGatewayOfAnyOfTheNodesRanges(t *testing.T) {
	n := newNode(t, "10.244.1.0/30", "10.244.9.0/29") // the first has one address beside the gateway
	n.own = n.own[:1]
	n.describeNode(func(node *nodefile.Node) { node.Addresses = n.own })
	for i, want := range []string{"10.244.1.2/30 by 10.244.1.1", "10.244.9.2/29 by 10.244.9.1"} {
		result, err := n.ipamCall(t, n.plugin.IPAMFuncs().Add, n.ipamConf(map[string]any{}), fmt.Sprintf("pod%d", i))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{want}, ipsOf(result)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestOtherMainPluginsGetAddressesOfTheirOwnRanges(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	f := n.plugin.IPAMFuncs()
	conf := n.ipamConf(map[string]any{
		"ranges": []any{
			[]any{map[string]any{"subnet": "10.9.0.0/29", "rangeEnd": "10.9.0.5"}},
			[]any{map[string]any{"subnet": "fd09::/64", "gateway": "fd09::2"}},
		},
		"reserved": []string{"10.9.0.2", "10.9.0.4/31"},
		"cooldown": "1h",
	})
	if err := os.Remove(filepath.Join(n.runDir, nodefile.Name)); err != nil {
		t.Fatal(err) // weftd is not needed
	}
	if _, err := n.ipamCall(t, f.Status, conf, ""); err != nil {
		t.Fatal(err)
	}
	result, err := n.ipamCall(t, f.Add, conf, "pod")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"10.9.0.3/29 by 10.9.0.1", "fd09::1/64 by fd09::2"}, ipsOf(result)); diff != "" {
		t.Error(diff)
	}
	_, err = n.ipamCall(t, f.Add, conf, "another")
	requireCode(t, err, types.ErrTryAgainLater)
	if _, err := n.ipamCall(t, f.Status, conf, ""); err != nil {
		t.Errorf("a full pool evicts pods: %v", err)
	}
	if _, err := n.ipamCall(t, f.Del, conf, "pod"); err != nil {
		t.Fatal(err)
	}
	if _, err = n.ipamCall(t, f.Add, conf, "another"); err != nil { // the only address need not cool down
		t.Error(err)
	}
}

func TestRangesThatCannotBeAreRefused(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	f := n.plugin.IPAMFuncs()
	of := func(r map[string]any) []any { return []any{[]any{r}} }
	for name, section := range map[string]map[string]any{
		"no subnet":           {"ranges": of(map[string]any{})},
		"a bound outside":     {"ranges": of(map[string]any{"subnet": "10.9.0.0/24", "rangeStart": "10.8.0.1"})},
		"an odd cooldown":     {"ranges": of(map[string]any{"subnet": "10.9.0.0/24"}), "cooldown": "soon"},
		"an odd reserve":      {"ranges": of(map[string]any{"subnet": "10.9.0.0/24"}), "reserved": []string{"x"}},
		"nothing in a set":    {"ranges": []any{[]any{}}},
		"a negative cooldown": {"ranges": of(map[string]any{"subnet": "10.9.0.0/24"}), "cooldown": "-1s"},
		"IPv4 in IPv6 form":   {"ranges": of(map[string]any{"subnet": "::ffff:10.9.0.0/120"})},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := n.ipamCall(t, f.Add, n.ipamConf(section), "pod")
			requireCode(t, err, types.ErrInvalidNetworkConfig)
			_, err = n.ipamCall(t, f.Status, n.ipamConf(section), "")
			requireCode(t, err, types.ErrInvalidNetworkConfig)
		})
	}
	if err := os.Remove(filepath.Join(n.runDir, nodefile.Name)); err != nil {
		t.Fatal(err)
	}
	_, err := n.ipamCall(t, f.Add, n.ipamConf(map[string]any{}), "pod")
	requireCode(t, err, types.ErrTryAgainLater)
	_, err = n.ipamCall(t, f.Status, n.ipamConf(map[string]any{}), "")
	requireCode(t, err, types.ErrLimitedConnectivity)
}

func TestCallsThatMakeNoSenseAreRefusedByWeftIPAM(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	f := n.plugin.IPAMFuncs()
	for name, call := range map[string]func(*skel.CmdArgs) error{"ADD": f.Add, "DEL": f.Del, "CHECK": f.Check, "STATUS": f.Status} {
		t.Run(name, func(t *testing.T) {
			requireCode(t, n.call(call, &skel.CmdArgs{ContainerID: "pod", IfName: "eth0", StdinData: []byte("{")}), types.ErrDecodingFailure)
			conf := n.ipamConf(map[string]any{})
			conf["name"] = "../up"
			_, err := n.ipamCall(t, call, conf, "pod")
			requireCode(t, err, types.ErrInvalidNetworkConfig)
		})
	}
	path := filepath.Join(n.stateDir, "ipam", "side.json")
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("{}"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, call := range []func(*skel.CmdArgs) error{f.Add, f.Del, f.Check} {
		_, err := n.ipamCall(t, call, n.ipamConf(map[string]any{}), "pod")
		requireCode(t, err, CodeCorrupt)
	}
}

// Debian's bridge, with weft-ipam as it is shipped.
func TestABridgeWithWeftsLeases(t *testing.T) {
	n, pod := newNode(t, families["IPv4"]...), newNamespace(t)
	build := exec.Command("go", "build", "-o", filepath.Join(binDir, IPAMType), "weft/cmd/weft-ipam")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build weft-ipam: %v\n%s", err, out)
	}
	conf := n.ipamConf(map[string]any{"ranges": []any{[]any{map[string]any{"subnet": "10.9.0.0/24"}}}})
	conf["cniVersion"], conf["bridge"], conf["isGateway"] = "1.0.0", "side0", true
	list, err := libcni.ConfListFromBytes(encode(t, map[string]any{"cniVersion": "1.0.0", "name": "side", "plugins": []any{conf}}))
	if err != nil {
		t.Fatal(err)
	}
	cni := libcni.NewCNIConfigWithCacheDir([]string{othersDir, binDir}, t.TempDir(), &nodeExec{node: n})
	if _, err := cni.AddNetworkList(t.Context(), list, runtimeConf("pod", pod)); err != nil {
		t.Fatal(err)
	}
	if got := pod.addrs(t, "eth0"); len(got) != 1 || got[0].String() != "10.9.0.2" {
		t.Errorf("the pod has %v", got)
	}
	if got := dial(t, n.namespace, pod, pod.addrs(t, "eth0")[0]); got.String() != "10.9.0.1" {
		t.Errorf("the pod saw %s", got)
	}
	if err := cni.CheckNetworkList(t.Context(), list, runtimeConf("pod", pod)); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	// An address of another plugin's pod is no leak, though weft-cni has no veth for it.
	expect(t, n.reconcile())
	side := n.ipamConf(map[string]any{})
	side["cni.dev/valid-attachments"] = []any{}
	process := pod.live(t)
	_, err = n.ipamCall(t, n.plugin.IPAMFuncs().GC, side, "")
	requireCode(t, err, CodeStillRuns)
	if !strings.Contains(err.Error(), "10.9.0.2") {
		t.Errorf("%q does not name the address", err)
	}
	_ = process.Process.Kill()
	_ = process.Wait()
	if _, err := n.ipamCall(t, n.plugin.IPAMFuncs().GC, side, ""); err != nil {
		t.Fatal(err)
	}
	if err := cni.DelNetworkList(t.Context(), list, runtimeConf("pod", pod)); err != nil {
		t.Fatal(err)
	}
}
