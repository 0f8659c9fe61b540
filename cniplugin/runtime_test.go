package cniplugin

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types040 "github.com/containernetworking/cni/pkg/types/040"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// families are the address families a network can have.
var families = map[string][]string{
	"IPv4":       {"10.244.1.0/24"},
	"IPv6":       {"fd00:244:1::/64"},
	"dual stack": {"10.244.1.0/24", "fd00:244:1::/64"},
}

// addrsOf returns the addresses of a result.
func addrsOf(t *testing.T, result types.Result) []netip.Addr {
	t.Helper()
	current, err := types100.NewResultFromResult(result)
	if err != nil {
		t.Fatal(err)
	}
	var addrs []netip.Addr
	for _, ip := range current.IPs {
		addr, _ := netip.AddrFromSlice(ip.Address.IP)
		addrs = append(addrs, addr.Unmap())
	}
	return addrs
}

// Pods reach each other and the node, and are seen with their own addresses.
func TestPodsReachPodsAndNode(t *testing.T) {
	for name, cidrs := range families {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, cidrs...)
			list := n.list("1.1.0")
			pods := []namespace{newNamespace(t), newNamespace(t)}
			var addrs [2][]netip.Addr
			for i, pod := range pods {
				rt := runtimeConf([]string{"pod-a", "pod-b"}[i], pod)
				result, err := n.cni.AddNetworkList(t.Context(), list, rt)
				if err != nil {
					t.Fatal(err)
				}
				addrs[i] = addrsOf(t, result)
				requireSameAddrs(t, pod.addrs(t, "eth0"), addrs[i])
				if err := n.cni.CheckNetworkList(t.Context(), list, rt); err != nil {
					t.Errorf("CHECK after ADD: %v", err)
				}
			}
			for i := range cidrs {
				if from := dial(t, pods[0], pods[1], addrs[1][i]); from != addrs[0][i] {
					t.Errorf("pod a is seen as %s, has %s", from, addrs[0][i])
				}
				if from := dial(t, pods[1], pods[0], addrs[0][i]); from != addrs[1][i] {
					t.Errorf("pod b is seen as %s, has %s", from, addrs[1][i])
				}
				if from := dial(t, n.namespace, pods[0], addrs[0][i]); from != n.own[i] {
					t.Errorf("the node is seen as %s, has %s", from, n.own[i])
				}
				if from := dial(t, pods[0], n.namespace, n.own[i]); from != addrs[0][i] {
					t.Errorf("at the node, pod a is seen as %s, has %s", from, addrs[0][i])
				}
			}
			for i, pod := range pods {
				if err := n.cni.DelNetworkList(t.Context(), list, runtimeConf([]string{"pod-a", "pod-b"}[i], pod)); err != nil {
					t.Error(err)
				}
			}
			n.requireNothingLeft()
		})
	}
}

// Every version of the specification gets its own result.
func TestResultOfEveryVersion(t *testing.T) {
	n := newNode(t, families["dual stack"]...)
	for _, cniVersion := range Versions.SupportedVersions() {
		t.Run(cniVersion, func(t *testing.T) {
			pod := newNamespace(t)
			list, rt := n.list(cniVersion), runtimeConf("pod-"+cniVersion, pod)
			result, err := n.cni.AddNetworkList(t.Context(), list, rt)
			if err != nil {
				t.Fatal(err)
			}
			if result.Version() != cniVersion {
				t.Errorf("result has version %s", result.Version())
			}
			if _, old := result.(*types040.Result); old != (cniVersion < "1.0.0") {
				t.Errorf("result is a %T", result)
			}
			requireSameAddrs(t, pod.addrs(t, "eth0"), addrsOf(t, result))
			if cniVersion != "0.3.1" { // which has no CHECK
				if err := n.cni.CheckNetworkList(t.Context(), list, rt); err != nil {
					t.Errorf("CHECK: %v", err)
				}
			}
			if err := n.cni.DelNetworkList(t.Context(), list, rt); err != nil {
				t.Error(err)
			}
		})
	}
	n.requireNothingLeft()
}

func TestBinaryReportsItsVersions(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	info, err := n.cni.GetVersionInfo(t.Context(), Type)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.SupportedVersions(); len(got) != 4 || got[0] != "0.3.1" || got[3] != "1.1.0" {
		t.Errorf("got %v", got)
	}
}

func TestTheBinaryRefusesNamesThatLeadElsewhere(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	pod := newNamespace(t)
	long := make([]byte, 300)
	for i := range long {
		long[i] = 'c'
	}
	tests := []struct {
		name, containerID, ifName, network string
		code                               uint
	}{
		{"container ID leads up", "../../etc", "eth0", "weft", types.ErrInvalidEnvironmentVariables},
		{"container ID too long", string(long), "eth0", "weft", types.ErrInvalidEnvironmentVariables},
		{"interface leads up", "pod", "../x", "weft", types.ErrInvalidEnvironmentVariables},
		{"interface too long", "pod", string(long), "weft", types.ErrInvalidEnvironmentVariables},
		{"interface is a pattern", "pod", "eth%d", "weft", types.ErrInvalidEnvironmentVariables},
		{"interface is the loopback", "pod", "lo", "weft", types.ErrInvalidEnvironmentVariables},
		{"network leads up", "pod", "eth0", "../weft", types.ErrInvalidNetworkConfig},
		{"network too long", "pod", "eth0", string(long), types.ErrInvalidNetworkConfig},
	}
	for _, tt := range tests {
		for _, command := range []string{"ADD", "DEL"} {
			t.Run(tt.name+" "+command, func(t *testing.T) {
				conf := n.conf("1.1.0")
				conf["name"] = tt.network
				_, err := (&nodeExec{node: n}).ExecPlugin(t.Context(), binDir+"/"+Type, encode(t, conf), []string{
					"CNI_COMMAND=" + command, "CNI_PATH=" + binDir, "CNI_NETNS=" + pod.Path(),
					"CNI_CONTAINERID=" + tt.containerID, "CNI_IFNAME=" + tt.ifName,
				})
				requireCode(t, err, tt.code)
			})
		}
	}
	n.requireNothingLeft()
}

func TestStatusThroughTheRuntime(t *testing.T) {
	n := newNode(t, "10.244.1.0/30") // one address beside the node's own
	list := n.list("1.1.0")
	if err := n.cni.GetStatusNetworkList(t.Context(), list); err != nil {
		t.Fatal(err)
	}
	rt := &libcni.RuntimeConf{ContainerID: "pod", NetNS: newNamespace(t).Path(), IfName: "eth0"}
	if _, err := n.cni.AddNetworkList(t.Context(), list, rt); err != nil {
		t.Fatal(err)
	}
	if err := n.cni.GetStatusNetworkList(t.Context(), list); err != nil {
		t.Errorf("a full pool evicts pods: %v", err)
	}
}

func TestAHundredADDsAtOnceGiveAddressesOfTheirOwn(t *testing.T) {
	const pods = 110 // Kubernetes' default for a node
	n := newNode(t, families["dual stack"]...)
	list := n.list("1.1.0")
	var namespaces []namespace
	for range pods {
		namespaces = append(namespaces, newNamespace(t))
	}
	var calls sync.WaitGroup
	for i, pod := range namespaces {
		calls.Go(func() {
			if _, err := n.cni.AddNetworkList(t.Context(), list, runtimeConf(fmt.Sprintf("container%d", i), pod)); err != nil {
				t.Errorf("ADD %d: %v", i, err)
			}
		})
	}
	calls.Wait()
	holders := map[netip.Addr]int{}
	for i, pod := range namespaces {
		addrs := pod.addrs(t, "eth0")
		if len(addrs) != 2 {
			t.Errorf("pod %d has %s", i, addrs)
		}
		for _, addr := range addrs {
			if other, ok := holders[addr]; ok {
				t.Errorf("%s is held by pods %d and %d", addr, other, i)
			}
			holders[addr] = i
		}
	}
}
