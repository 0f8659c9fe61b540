package cniplugin

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"

	"weft/cniplugin/wiring"
	"weft/ipam"
)

// attached is a pod after its ADD, and the call that checks it.
type attached struct {
	*node
	pod  namespace
	host string
	args *skel.CmdArgs
}

func attach(t *testing.T) *attached {
	t.Helper()
	n := newNode(t, families["dual stack"]...)
	a := &attached{node: n, pod: newNamespace(t), host: wiring.HostName(ipam.Attachment{ContainerID: "pod", IfName: "eth0"})}
	a.args = n.args("pod", a.pod.Path())
	if err := n.call(n.plugin.Add, a.args); err != nil {
		t.Fatal(err)
	}
	var result map[string]any
	if err := json.Unmarshal(n.out.Bytes(), &result); err != nil {
		t.Fatal(err)
	}
	conf := n.conf("1.1.0")
	conf["prevResult"] = result
	a.args.StdinData = encode(t, conf)
	return a
}

// change runs f on the link called name in a namespace.
func change(t *testing.T, where namespace, name string, f func(netlink.Link) error) {
	t.Helper()
	where.in(t, func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return f(link)
	})
}

func removeAddr(cidr string) func(netlink.Link) error {
	return func(link netlink.Link) error {
		addr, err := netlink.ParseAddr(cidr)
		if err != nil {
			return err
		}
		return netlink.AddrDel(link, addr)
	}
}

func removeRoute(cidr string) func(netlink.Link) error {
	return func(link netlink.Link) error {
		_, dst, err := net.ParseCIDR(cidr)
		if err != nil {
			return err
		}
		return netlink.RouteDel(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_NOWHERE})
	}
}

func removeNeighbour(ip string) func(netlink.Link) error {
	return func(link netlink.Link) error {
		return netlink.NeighDel(&netlink.Neigh{LinkIndex: link.Attrs().Index, IP: net.ParseIP(ip)})
	}
}

// editResult replaces text in prevResult.
func editResult(a *attached, from, to string) {
	a.args.StdinData = []byte(strings.ReplaceAll(string(a.args.StdinData), from, to))
}

func TestCHECKNamesWhatIsMissing(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, a *attached)
		want  []string // none: all is well
	}{
		{"nothing", func(*testing.T, *attached) {}, nil},
		{"the lease", func(t *testing.T, a *attached) {
			if err := os.RemoveAll(filepath.Join(a.stateDir, "ipam")); err != nil {
				t.Fatal(err)
			}
		}, []string{"has no lease"}},
		{"both ends", func(t *testing.T, a *attached) { change(t, a.pod, "eth0", netlink.LinkDel) },
			[]string{"host side " + wiring.HostName(ipam.Attachment{ContainerID: "pod", IfName: "eth0"}) + " is missing"}},
		{"the pod's interface by its name", func(t *testing.T, a *attached) {
			change(t, a.pod, "eth0", func(l netlink.Link) error { return netlink.LinkSetName(l, "eth7") })
		}, []string{"interface eth0 is missing"}},
		{"the pod's IPv4 address", func(t *testing.T, a *attached) { change(t, a.pod, "eth0", removeAddr("10.244.1.2/32")) },
			[]string{"the pod lacks the address 10.244.1.2/32"}},
		{"the pod's IPv6 address", func(t *testing.T, a *attached) { change(t, a.pod, "eth0", removeAddr("fd00:244:1::2/128")) },
			[]string{"the pod lacks the address fd00:244:1::2/128"}},
		{"the gateways", func(t *testing.T, a *attached) {
			change(t, a.namespace, a.host, removeAddr("169.254.1.1/32"))
			change(t, a.namespace, a.host, removeAddr("fe80::1/64"))
		}, []string{"lacks the address 169.254.1.1/32", "lacks the address fe80::1/64"}},
		{"the pod's default routes", func(t *testing.T, a *attached) {
			change(t, a.pod, "eth0", removeRoute("0.0.0.0/0"))
			change(t, a.pod, "eth0", removeRoute("::/0"))
		}, []string{"the route to 0.0.0.0/0 by 169.254.1.1", "the route to ::/0 by fe80::1"}},
		{"the host's routes", func(t *testing.T, a *attached) {
			change(t, a.namespace, a.host, removeRoute("10.244.1.2/32"))
			change(t, a.namespace, a.host, removeRoute("fd00:244:1::2/128"))
		}, []string{"route to 10.244.1.2 by weft", "route to fd00:244:1::2 by weft"}},
		{"a routing rule of another program", func(t *testing.T, a *attached) {
			a.in(t, func() error {
				return exec.Command("sh", "-ec", "ip link set lo up; ip route add 10.244.1.2 dev lo table 220; ip rule add pref 220 lookup 220").Run()
			})
		}, []string{"another program's route or routing rule comes before the route to 10.244.1.2 by weft"}},
		{"the neighbours", func(t *testing.T, a *attached) {
			change(t, a.pod, "eth0", removeNeighbour("169.254.1.1"))
			change(t, a.namespace, a.host, removeNeighbour("10.244.1.2"))
		}, []string{"the pod lacks the neighbour 169.254.1.1", "the host side lacks the neighbour 10.244.1.2"}},
		{"the pod is down", func(t *testing.T, a *attached) { change(t, a.pod, "eth0", netlink.LinkSetDown) },
			[]string{"eth0 is down", "the route to 0.0.0.0/0 by 169.254.1.1"}},
		{"an equal MTU", func(t *testing.T, a *attached) {
			change(t, a.pod, "eth0", func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1300) })
		}, []string{"eth0 has 1300", "eth0 has MTU 1300, prevResult has 1400"}},
		{"a neighbour with the pod's new MAC", func(t *testing.T, a *attached) {
			change(t, a.pod, "eth0", func(l netlink.Link) error {
				return netlink.LinkSetHardwareAddr(l, net.HardwareAddr{2, 0, 0, 0, 0, 7})
			})
		}, []string{"eth0 has MAC 02:00:00:00:00:07", "the host side lacks the neighbour 10.244.1.2 at 02:00:00:00:00:07"}},
		{"the leased address in prevResult", func(_ *testing.T, a *attached) { editResult(a, "10.244.1.2/32", "10.244.1.9/32") },
			[]string{"10.244.1.9 of prevResult is not leased", "10.244.1.2 is leased, but not in prevResult"}},
		{"the interface in prevResult", func(_ *testing.T, a *attached) { editResult(a, `"eth0"`, `"eth9"`) },
			[]string{"prevResult has no interface eth0"}},
		{"the mark of a complete ADD", func(t *testing.T, a *attached) {
			if err := a.call(a.plugin.Del, a.args); err != nil {
				t.Fatal(err)
			}
			killAt(t, a.node, "mark the veth as complete", a.pod)
			// Rotation has given the pod its next address.
			editResult(a, "10.244.1.2/32", "10.244.1.3/32")
			editResult(a, "fd00:244:1::2/128", "fd00:244:1::3/128")
		}, []string{"not marked as complete"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := attach(t)
			tt.spoil(t, a)
			err := a.call(a.plugin.Check, a.args)
			if tt.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			requireCode(t, err, CodeIncomplete)
			for _, part := range tt.want {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not contain %q", err, part)
				}
			}
		})
	}
}

func TestCHECKRefusesACallItCannotAnswer(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(a *attached, conf map[string]any)
		code  uint
	}{
		{"without prevResult", func(_ *attached, conf map[string]any) { delete(conf, "prevResult") }, types.ErrInvalidNetworkConfig},
		{"with a prevResult that is none", func(_ *attached, conf map[string]any) {
			conf["prevResult"] = map[string]any{"cniVersion": "1.1.0", "ips": 7}
		}, types.ErrDecodingFailure},
		{"with another plugin's addresses", func(_ *attached, conf map[string]any) {
			conf["ipam"] = map[string]any{"type": "host-local"}
		}, types.ErrInvalidNetworkConfig},
		{"without a namespace", func(a *attached, _ map[string]any) { a.args.Netns = "/nowhere" }, types.ErrInvalidEnvironmentVariables},
		{"without a container", func(a *attached, _ map[string]any) { a.args.ContainerID = "" }, types.ErrInvalidEnvironmentVariables},
	}
	a := attach(t)
	original := *a.args
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			*a.args = original
			var conf map[string]any
			if err := json.Unmarshal(original.StdinData, &conf); err != nil {
				t.Fatal(err)
			}
			tt.spoil(a, conf)
			a.args.StdinData = encode(t, conf)
			requireCode(t, a.call(a.plugin.Check, a.args), tt.code)
		})
	}
}
