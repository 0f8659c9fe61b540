package cniplugin

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"weft/internal/testnet"
)

// othersDir is where Debian's package containernetworking-plugins puts other plugins.
const othersDir = "/usr/lib/cni"

// hostLocal has another plugin give out a network's addresses. It speaks up to 1.0.0.
func (n *node) hostLocal(t *testing.T, subnets ...string) map[string]any {
	t.Helper()
	if _, err := os.Stat(othersDir + "/host-local"); err != nil {
		t.Fatalf("%v: install containernetworking-plugins (make deps)", err)
	}
	ranges, routes := []any{}, []any{}
	for _, s := range subnets {
		r := map[string]any{"subnet": s}
		if prefix := netip.MustParsePrefix(s); prefix.Addr().Is4() {
			r["rangeStart"] = "10.244.1.20"
			routes = append(routes, map[string]any{"dst": "0.0.0.0/0"})
		} else {
			routes = append(routes, map[string]any{"dst": "::/0"})
		}
		ranges = append(ranges, []any{r})
	}
	conf := n.conf("1.0.0")
	conf["ipam"] = map[string]any{
		"type": "host-local", "dataDir": filepath.Join(n.stateDir, "host-local"), "ranges": ranges, "routes": routes,
	}
	return conf
}

// hostLocalHolds returns the addresses that host-local has given out.
func (n *node) hostLocalHolds(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(n.stateDir, "host-local", "weft"))
	if err != nil {
		t.Fatal(err)
	}
	var held []string
	for _, e := range entries {
		if _, err := netip.ParseAddr(e.Name()); err == nil {
			held = append(held, e.Name())
		}
	}
	return held
}

// asRuntime calls f with the environment in which a runtime starts the plugin.
func (n *node) asRuntime(t *testing.T, f func(*skel.CmdArgs) error, conf map[string]any, containerID string, pod namespace) error {
	t.Helper()
	args := n.args(containerID, pod.Path())
	args.StdinData = encode(t, conf)
	for name, value := range map[string]string{
		"CNI_PATH": othersDir, "CNI_CONTAINERID": containerID, "CNI_NETNS": args.Netns, "CNI_IFNAME": "eth0", "CNI_ARGS": "",
	} {
		t.Setenv(name, value)
	}
	return n.call(f, args)
}

func TestAnotherIPAMPluginGivesTheAddresses(t *testing.T) {
	n, pod := newNode(t, families["dual stack"]...), newNamespace(t)
	conf := n.hostLocal(t, families["dual stack"]...)
	if err := n.asRuntime(t, n.plugin.Add, conf, "pod", pod); err != nil {
		t.Fatal(err)
	}
	result := n.printed(t)
	if diff := cmp.Diff([]string{"10.244.1.20", "fd00:244:1::2"}, resultAddrs(result)); diff != "" {
		t.Error(diff)
	}
	requireSameAddrs(t, pod.addrs(t, "eth0"), addrsOf(t, result))
	if lease := n.leases()[0]; lease.IPAM != "host-local" || !slices.Equal(lease.Addresses, addrsOf(t, result)) {
		t.Errorf("recorded %+v", lease)
	}
	if got := dial(t, n.namespace, pod, netip.MustParseAddr("10.244.1.20")); got != n.own[0] {
		t.Errorf("the pod saw %s", got)
	}
	conf["prevResult"] = json.RawMessage(n.out.Bytes())
	if err := n.asRuntime(t, n.plugin.Check, conf, "pod", pod); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	expect(t, n.reconcile())
	delete(conf, "prevResult")
	for range 2 {
		if err := n.asRuntime(t, n.plugin.Del, conf, "pod", pod); err != nil {
			t.Fatal(err)
		}
	}
	n.requireNothingLeft()
	if held := n.hostLocalHolds(t); len(held) > 0 {
		t.Errorf("host-local still holds %s", held)
	}
}

func TestAnADDKilledBetweenAnotherPluginsAddressesAndTheirRecordIsHealed(t *testing.T) {
	for name, heal := range map[string]func(t *testing.T, n *node, conf map[string]any, pod namespace){
		"by the next ADD": func(t *testing.T, n *node, conf map[string]any, pod namespace) {
			if err := n.asRuntime(t, n.plugin.Add, conf, "pod", pod); err != nil {
				t.Fatal(err)
			}
			if held := n.hostLocalHolds(t); len(held) != 1 || held[0] != n.leases()[0].Addresses[0].String() {
				t.Errorf("host-local holds %s, the pod %v", held, n.leases())
			}
			if err := n.asRuntime(t, n.plugin.Del, conf, "pod", pod); err != nil {
				t.Fatal(err)
			}
		},
		"by DEL": func(t *testing.T, n *node, conf map[string]any, pod namespace) {
			if err := n.asRuntime(t, n.plugin.Del, conf, "pod", pod); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			n, pod := newNode(t, families["IPv4"]...), newNamespace(t)
			conf := n.hostLocal(t, families["IPv4"]...)
			// What the killed ADD has done.
			delegated := &libcni.PluginConfig{Network: &types.PluginConf{}, Bytes: encode(t, conf)}
			if _, err := (&nodeExec{node: n}).ExecPlugin(t.Context(), othersDir+"/host-local", delegated.Bytes, []string{
				"CNI_COMMAND=ADD", "CNI_PATH=" + othersDir, "CNI_NETNS=" + pod.Path(), "CNI_CONTAINERID=pod", "CNI_IFNAME=eth0",
			}); err != nil {
				t.Fatal(err)
			}
			heal(t, n, conf, pod)
			n.requireNothingLeft()
			if held := n.hostLocalHolds(t); len(held) > 0 {
				t.Errorf("host-local still holds %s", held)
			}
		})
	}
}

func TestAddressesThatCannotBePodsAreGivenBack(t *testing.T) {
	for name, tt := range map[string]struct {
		subnets []string
		want    string
	}{
		"of another node":   {[]string{"10.244.9.0/24"}, "10.244.9.2, which is not an address of this node's pods"},
		"two of one family": {[]string{"fd00:244:1::/66", "fd00:244:1:0:4000::/66"}, "two addresses of one family"},
	} {
		t.Run(name, func(t *testing.T) {
			n, pod := newNode(t, families["dual stack"]...), newNamespace(t)
			conf := n.hostLocal(t, tt.subnets...)
			for _, set := range conf["ipam"].(map[string]any)["ranges"].([]any) {
				delete(set.([]any)[0].(map[string]any), "rangeStart")
			}
			err := n.asRuntime(t, n.plugin.Add, conf, "pod", pod)
			requireCode(t, err, types.ErrInvalidNetworkConfig)
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%q lacks %q", err, tt.want)
			}
			n.requireNothingLeft()
			if held := n.hostLocalHolds(t); len(held) > 0 {
				t.Errorf("host-local still holds %s", held)
			}
		})
	}
}

func TestAnADDThatFailsAfterAnotherPluginsGivesItsAddressBack(t *testing.T) {
	n, pod := newNode(t, families["IPv4"]...), newNamespace(t)
	n.plugin.runStep = func(s step) error {
		if s.what == "mark the veth as complete" {
			return errKilled
		}
		return s.do()
	}
	conf := n.hostLocal(t, families["IPv4"]...)
	requireCode(t, n.asRuntime(t, n.plugin.Add, conf, "pod", pod), CodeWiring)
	n.requireNothingLeft()
	if held := n.hostLocalHolds(t); len(held) > 0 {
		t.Errorf("host-local still holds %s", held)
	}
}

func TestAPluginThatFailsIsQuotedWithItsCode(t *testing.T) {
	n, pod := newNode(t, families["IPv4"]...), newNamespace(t)
	conf := n.hostLocal(t, families["IPv4"]...)
	conf["ipam"].(map[string]any)["ranges"] = []any{}
	err := n.asRuntime(t, n.plugin.Add, conf, "pod", pod)
	if err == nil || !strings.Contains(err.Error(), "ipam plugin host-local") {
		t.Errorf("got %v", err)
	}
	n.requireNothingLeft()
}

func TestALeakOfAnotherPluginsAddressIsNamedAndLeftToIt(t *testing.T) {
	n, pod := newNode(t, families["IPv4"]...), newNamespace(t)
	conf := n.hostLocal(t, families["IPv4"]...)
	if err := n.asRuntime(t, n.plugin.Add, conf, "pod", pod); err != nil {
		t.Fatal(err)
	}
	gone := namespace{pod.NetNS}
	pod.Close()
	n.waitForVeths(0)
	expect(t, n.reconcile(), "kept pod/eth0|10.244.1.20|host-local")
	if err := n.asRuntime(t, n.plugin.Del, conf, "pod", gone); err != nil {
		t.Fatal(err)
	}
	n.requireNothingLeft()
	if held := n.hostLocalHolds(t); len(held) > 0 {
		t.Errorf("host-local still holds %s", held)
	}
}

// fakeIPAM answers as a plugin that knows all verbs, and logs what it is asked.
func (n *node) fakeIPAM(t *testing.T) (conf map[string]any, asked func() string) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	script := `#!/bin/sh
echo "$CNI_COMMAND $(cat)" >> ` + log + `
[ "$CNI_COMMAND" = STATUS ] && [ -e ` + dir + `/full ] && { echo '{"cniVersion":"1.1.0","code":50,"msg":"full"}'; exit 1; }
[ "$CNI_COMMAND" = ADD ] && echo '{"cniVersion":"1.1.0","ips":[{"address":"10.244.1.99/24"}],"dns":{"nameservers":["192.0.2.1"]}}'
exit 0
`
	syscall.ForkLock.RLock() // no process that is started meanwhile shall inherit the open file (ETXTBSY)
	err := os.WriteFile(filepath.Join(dir, "fake"), []byte(script), 0o755)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	conf = n.conf("1.1.0")
	conf["ipam"] = map[string]any{"type": "fake"}
	t.Setenv("CNI_PATH", dir)
	return conf, func() string {
		data, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(log)
		return string(data)
	}
}

func TestGCAndSTATUSReachTheOtherPlugin(t *testing.T) {
	n, pod := newNode(t, families["IPv4"]...), newNamespace(t)
	conf, asked := n.fakeIPAM(t)
	args := n.args("kept", pod.Path())
	args.StdinData = encode(t, conf)
	if err := n.call(n.plugin.Add, args); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(n.out.String(), "192.0.2.1") {
		t.Errorf("no word of its name server: %s", n.out.String())
	}
	if got := asked(); !strings.HasPrefix(got, "DEL ") || !strings.Contains(got, "\nADD ") {
		t.Errorf("asked %q", got)
	}
	pod.live(t)
	conf["cni.dev/valid-attachments"] = []any{map[string]any{"containerID": "other", "ifname": "eth0"}}
	args.StdinData = encode(t, conf)
	requireCode(t, n.call(n.plugin.GC, args), CodeStillRuns)
	if got := asked(); !strings.HasPrefix(got, "GC ") || !strings.Contains(got, `"other"`) || !strings.Contains(got, `"kept"`) {
		t.Errorf("what weft-cni keeps the other plugin must keep: %q", got)
	}
	if err := n.call(n.plugin.Status, args); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(os.Getenv("CNI_PATH"), "full"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	requireCode(t, n.call(n.plugin.Status, args), types.ErrPluginNotAvailable)
}

// A plugin that leaves its output to a child has answered when it ends itself.
func TestDelegateLeavesItsOutputToAChild(t *testing.T) {
	dir := t.TempDir()
	child := filepath.Join(dir, "child")
	script := "#!/bin/sh\nsleep 1000 &\necho $! >" + child + "\necho answer\n"
	if err := os.WriteFile(filepath.Join(dir, "forks"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CNI_PATH", dir)
	t.Cleanup(func() {
		if pid, err := os.ReadFile(child); err == nil {
			_ = exec.Command("kill", strings.TrimSpace(string(pid))).Run()
		}
	})
	answer := make(chan string, 1)
	go func() {
		c := config{IPAM: ipamConfig{Type: "forks"}}
		printed, err := c.delegate(t.Context(), "STATUS", nil)
		answer <- fmt.Sprint(string(printed), err)
	}()
	select {
	case got := <-answer:
		if got != "answer\n<nil>" {
			t.Errorf("it answered %q", got)
		}
	case <-time.After(testnet.WaitLimit):
		t.Error("its child is waited for")
	}
}
