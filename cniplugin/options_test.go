package cniplugin

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"weft/internal/rtnetlink"
)

// add attaches a pod with a configuration that change has altered, and returns the result
// that the runtime receives.
func (n *node) add(t *testing.T, containerID string, pod namespace, change func(conf map[string]any)) (*types100.Result, error) {
	t.Helper()
	conf := n.conf("1.1.0")
	change(conf)
	args := n.args(containerID, pod.Path())
	args.StdinData = encode(t, conf)
	if err := n.call(n.plugin.Add, args); err != nil {
		return nil, err
	}
	return n.printed(t), nil
}

// printed is the result of the last call that printed one.
func (n *node) printed(t *testing.T) *types100.Result {
	t.Helper()
	result := &types100.Result{}
	if err := json.Unmarshal(n.out.Bytes(), result); err != nil {
		t.Fatal(err)
	}
	return result
}

func resultAddrs(r *types100.Result) []string {
	var texts []string
	for _, ip := range r.IPs {
		texts = append(texts, rtnetlink.Addr(ip.Address.IP).String())
	}
	return texts
}

func TestAPodGetsTheAddressesThatItsRuntimeNames(t *testing.T) {
	n := newNode(t, families["dual stack"]...)
	for name, tt := range map[string]struct {
		conf map[string]any
		want []string
	}{
		"by the capability": {map[string]any{"runtimeConfig": map[string]any{"ips": []string{"10.244.1.77/24", "fd00:244:1::77"}}},
			[]string{"10.244.1.77", "fd00:244:1::77"}},
		"by args": {map[string]any{"args": map[string]any{"cni": map[string]any{"ips": []string{"10.244.1.78"}}}},
			[]string{"10.244.1.78"}},
	} {
		t.Run(name, func(t *testing.T) {
			pod := newNamespace(t)
			result, err := n.add(t, "pod-"+tt.want[0], pod, func(conf map[string]any) {
				maps.Copy(conf, tt.conf)
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !slices.Contains(resultAddrs(result), want) || !slices.Contains(pod.addrs(t, "eth0"), netip.MustParseAddr(want)) {
					t.Errorf("got %s, the pod has %s; want %s", resultAddrs(result), pod.addrs(t, "eth0"), tt.want)
				}
			}
		})
	}
	args := n.args("by-cni-args", newNamespace(t).Path())
	args.Args = "IgnoreUnknown=1;IP=10.244.1.79,fd00:244:1::79;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web"
	if err := n.call(n.plugin.Add, args); err != nil {
		t.Fatal(err)
	}
	lease := n.leases()[len(n.leases())-1]
	if lease.Addresses[0] != netip.MustParseAddr("10.244.1.79") || lease.Pod != "default/web" || lease.NetNS != args.Netns {
		t.Errorf("lease %+v", lease)
	}
	args.ContainerID, args.Args = "again", "IP=10.244.1.79"
	err := n.call(n.plugin.Add, args)
	requireCode(t, err, CodeRefused)
	if !strings.Contains(err.Error(), "default/web") {
		t.Errorf("%q does not name the pod that has it", err)
	}
	args.Args = "MAC=01:00:5e:00:00:01"
	requireCode(t, n.call(n.plugin.Add, args), types.ErrInvalidEnvironmentVariables)
	args.Args = "IP=ten"
	requireCode(t, n.call(n.plugin.Add, args), types.ErrInvalidEnvironmentVariables)
}

// A pod gets the routes, the MTU and the name servers of the configuration.
func TestAddAppliesConfiguration(t *testing.T) {
	n, pod := newNode(t, families["dual stack"]...), newNamespace(t)
	result, err := n.add(t, "pod", pod, func(conf map[string]any) {
		conf["mtu"] = 1300
		conf["dns"] = map[string]any{"nameservers": []string{"10.96.0.10"}, "search": []string{"cluster.local"}}
		conf["ipam"] = map[string]any{"routes": []any{
			map[string]any{"dst": "10.244.0.0/16", "mtu": 1290, "advmss": 1200},
			map[string]any{"dst": "fd00:244::/32", "gw": "fe80::1", "priority": 7},
			map[string]any{"dst": "198.51.100.0/24", "table": 77},
		}}
	})
	if err != nil {
		t.Fatal(err)
	}
	if result.DNS.Nameservers[0] != "10.96.0.10" || result.DNS.Search[0] != "cluster.local" {
		t.Errorf("DNS: %+v", result.DNS)
	}
	var got []string
	for _, r := range result.Routes {
		got = append(got, r.Dst.String()+" "+r.GW.String())
	}
	if diff := cmp.Diff([]string{"10.244.0.0/16 169.254.1.1", "fd00:244::/32 fe80::1", "198.51.100.0/24 169.254.1.1"}, got); diff != "" {
		t.Error(diff)
	}
	pod.in(t, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if link.Attrs().MTU != 1300 {
			t.Errorf("MTU %d", link.Attrs().MTU)
		}
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		found := 0
		for _, r := range routes {
			if r.Dst == nil || r.Dst.String() == "0.0.0.0/0" || r.Dst.String() == "::/0" {
				t.Errorf("an unwanted default route: %s", r)
			}
			switch {
			case r.Dst.String() == "10.244.0.0/16" && r.MTU == 1290 && r.AdvMSS == 1200,
				r.Dst.String() == "fd00:244::/32" && r.Priority == 7,
				r.Dst.String() == "198.51.100.0/24" && r.Table == 77:
				found++
			}
		}
		if found != 3 {
			t.Errorf("found %d of the routes among %v", found, routes)
		}
		return nil
	})
	conf := n.conf("1.1.0")
	conf["prevResult"] = json.RawMessage(n.out.Bytes())
	args := n.args("pod", pod.Path())
	args.StdinData = encode(t, conf)
	if err := n.call(n.plugin.Check, args); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	pod.in(t, func() error {
		return netlink.RouteDel(&netlink.Route{Dst: &result.Routes[2].Dst, Table: 77})
	})
	err = n.call(n.plugin.Check, args)
	requireCode(t, err, CodeIncomplete)
	if !strings.Contains(err.Error(), "198.51.100.0/24") {
		t.Errorf("%q does not name the route", err)
	}
}

func TestWhatThePluginsBeforeMadeIsPassedOn(t *testing.T) {
	n, pod := newNode(t, families["IPv4"]...), newNamespace(t)
	args := n.args("pod", pod.Path())
	conf := n.conf("1.1.0")
	conf["prevResult"] = map[string]any{
		"cniVersion": "1.1.0",
		"interfaces": []any{map[string]any{"name": "mgmt0", "sandbox": pod.Path()}},
		"ips":        []any{map[string]any{"interface": 0, "address": "192.0.2.7/24"}},
		"routes":     []any{map[string]any{"dst": "192.0.2.0/24"}},
		"dns":        map[string]any{"nameservers": []string{"192.0.2.53"}},
	}
	args.StdinData = encode(t, conf)
	if err := n.call(n.plugin.Add, args); err != nil {
		t.Fatal(err)
	}
	result := n.printed(t)
	if len(result.Interfaces) != 3 || result.Interfaces[0].Name != "mgmt0" || result.Interfaces[2].Name != "eth0" ||
		*result.IPs[0].Interface != 0 || *result.IPs[1].Interface != 2 || len(result.Routes) != 2 || result.DNS.Nameservers[0] != "192.0.2.53" {
		t.Errorf("result %s", n.out.String())
	}
	conf["prevResult"] = json.RawMessage(n.out.Bytes())
	args.StdinData = encode(t, conf)
	if err := n.call(n.plugin.Check, args); err != nil {
		t.Errorf("CHECK: %v", err)
	}
}

func TestTheVethCanBeCalledAfterThePod(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	named := func(containerID, ifName string, pod namespace) {
		args := n.args(containerID, pod.Path())
		if ifName != "eth0" { // a pod has one default route
			conf := n.conf("1.1.0")
			conf["ipam"] = map[string]any{"routes": []any{map[string]any{"dst": "198.51.100.0/24"}}}
			args.StdinData = encode(t, conf)
		}
		args.IfName, args.Args = ifName, "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0"
		if err := n.call(n.plugin.Add, args); err != nil {
			t.Fatal(err)
		}
	}
	pod := newNamespace(t)
	named("first", "eth0", pod)
	named("first", "net1", pod)
	named("second", "eth0", newNamespace(t)) // of the same name, before the first one went
	n.in(t, func() error {
		for name, want := range map[string]string{"weft-web-0.shop": "first/eth0 shop/web-0", "weft-net1.web-0.shop": "first/net1 shop/web-0"} {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			if link.Attrs().Alias != want {
				t.Errorf("%s is %s", name, link.Attrs().Alias)
			}
		}
		return nil
	})
}

func TestAPodGetsTheMACAddressThatItsRuntimeNames(t *testing.T) {
	n, pod := newNode(t, families["dual stack"]...), newNamespace(t)
	result, err := n.add(t, "pod", pod, func(conf map[string]any) {
		conf["runtimeConfig"] = map[string]any{"mac": "02:00:00:00:12:34"}
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := result.Interfaces[1].Mac; got != "02:00:00:00:12:34" {
		t.Errorf("MAC %s", got)
	}
	if got := dial(t, n.namespace, pod, rtnetlink.Addr(result.IPs[0].Address.IP)); got != n.own[0] {
		t.Errorf("the pod saw %s", got)
	}
	for _, mac := range []string{"02:00:00:00:12", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "x"} {
		_, err := n.add(t, "another", newNamespace(t), func(conf map[string]any) {
			conf["args"] = map[string]any{"cni": map[string]any{"mac": mac}}
		})
		requireCode(t, err, types.ErrInvalidNetworkConfig)
	}
}

// Pods of several networks, as Multus attaches them, share no address.
func TestNetworksShareNoAddress(t *testing.T) {
	n, pod := newNode(t, families["dual stack"]...), newNamespace(t)
	args := func(network, ifName string) *skel.CmdArgs {
		args, conf := n.args("pod", pod.Path()), n.conf("1.1.0")
		conf["name"] = network
		if ifName != "eth0" { // a pod has one default route
			conf["ipam"] = map[string]any{"routes": []any{map[string]any{"dst": map[string]string{"net1": "198.51.100.0/24", "net2": "203.0.113.0/24"}[ifName]}}}
		}
		args.IfName, args.StdinData = ifName, encode(t, conf)
		return args
	}
	for network, ifName := range map[string]string{"weft": "eth0", "second": "net1", "third": "net2"} {
		if err := n.call(n.plugin.Add, args(network, ifName)); err != nil {
			t.Fatal(err)
		}
	}
	again := args("fourth", "net3")
	again.StdinData = n.args("pod", pod.Path()).StdinData // which asks for default routes
	if err := n.call(n.plugin.Add, again); err == nil || !strings.Contains(err.Error(), "list under ipam.routes") {
		t.Errorf("a second interface with default routes: %v", err)
	}
	var addrs []netip.Addr
	for _, ifName := range []string{"eth0", "net1", "net2"} {
		addrs = append(addrs, pod.addrs(t, ifName)...)
	}
	for i, addr := range addrs {
		if slices.Contains(addrs[:i], addr) {
			t.Errorf("%s is given twice", addr)
		}
	}
	for network, ifName := range map[string]string{"weft": "eth0", "second": "net1", "third": "net2"} {
		if err := n.call(n.plugin.Del, args(network, ifName)); err != nil {
			t.Error(err)
		}
	}
	n.requireNothingLeft()
}
