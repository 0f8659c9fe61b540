package cniplugin

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"

	"weft/cniplugin/wiring"
	"weft/internal/nodefile"
	"weft/ipam"
)

func TestDELSucceedsWithWhateverIsLeft(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, n *node, pod namespace)
	}{
		{"everything", func(*testing.T, *node, namespace) {}},
		{"nothing, for the second time", func(t *testing.T, n *node, pod namespace) {
			if err := n.call(n.plugin.Del, n.args("pod", pod.Path())); err != nil {
				t.Fatal(err)
			}
		}},
		{"no description of the node and no TUN device", func(t *testing.T, n *node, _ namespace) {
			if err := os.Remove(filepath.Join(n.runDir, nodefile.Name)); err != nil {
				t.Fatal(err)
			}
			n.in(t, func() error {
				link, err := netlink.LinkByName("weft0")
				if err != nil {
					return err
				}
				return netlink.LinkDel(link)
			})
		}},
		{"no lease", func(t *testing.T, n *node, _ namespace) {
			if err := os.RemoveAll(filepath.Join(n.stateDir, "ipam")); err != nil {
				t.Fatal(err)
			}
		}},
		{"no veth", func(t *testing.T, _ *node, pod namespace) {
			pod.in(t, func() error {
				link, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				return netlink.LinkDel(link)
			})
		}},
		{"no namespace", func(_ *testing.T, _ *node, pod namespace) { pod.Close() }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t, families["dual stack"]...)
			pod := newNamespace(t)
			args := n.args("pod", pod.Path())
			if err := n.call(n.plugin.Add, args); err != nil {
				t.Fatal(err)
			}
			tt.prepare(t, n, pod)
			if err := n.call(n.plugin.Del, args); err != nil {
				t.Fatal(err)
			}
			n.requireNothingLeft()
		})
	}
}

// DEL before ADD succeeds with and without a namespace.
func TestDelBeforeAdd(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	for _, netns := range []string{newNamespace(t).Path(), "/nowhere", ""} {
		if err := n.call(n.plugin.Del, n.args("pod", netns)); err != nil {
			t.Errorf("CNI_NETNS %q: %v", netns, err)
		}
	}
}

func TestDELIgnoresWhatOnlyADDNeeds(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	if err := n.call(n.plugin.Add, n.args("pod", newNamespace(t).Path())); err != nil {
		t.Fatal(err)
	}
	conf := n.conf("1.1.0")
	conf["ipam"] = map[string]any{"type": "host-local"} // the configuration was changed since
	conf["prevResult"] = map[string]any{"cniVersion": "1.1.0"}
	args := n.args("pod", "")
	args.StdinData = encode(t, conf)
	if err := n.call(n.plugin.Del, args); err != nil {
		t.Error(err)
	}
	n.requireNothingLeft()
}

func TestDELLeavesAForeignLinkWithTheVethsName(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	name := wiring.HostName(ipam.Attachment{ContainerID: "pod", IfName: "eth0"})
	n.in(t, func() error { return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}) })
	if err := n.call(n.plugin.Del, n.args("pod", "")); err != nil {
		t.Fatal(err)
	}
	n.in(t, func() error {
		_, err := netlink.LinkByName(name)
		return err
	})
}

// A damaged lease file stops DEL after the pod is detached.
func TestDelWithDamagedLeaseFile(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	args := n.args("pod", newNamespace(t).Path())
	if err := n.call(n.plugin.Add, args); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(n.stateDir, "ipam", "weft.json")
	if err := os.Truncate(path, 10); err != nil {
		t.Fatal(err)
	}
	requireCode(t, n.call(n.plugin.Del, args), CodeCorrupt)
	if links := n.podLinks(); len(links) > 0 {
		t.Errorf("links left: %v", links)
	}
	requireCode(t, n.call(n.plugin.Add, args), CodeCorrupt)
	requireCode(t, n.call(n.plugin.Check, args), types.ErrInvalidNetworkConfig)
	requireCode(t, n.call(n.plugin.Status, args), types.ErrPluginNotAvailable)
}

// A state directory that cannot be written is an I/O failure.
func TestUnwritableStateDir(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	n.stateDir = filepath.Join(n.stateDir, "file")
	if err := os.WriteFile(n.stateDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	args := n.args("pod", newNamespace(t).Path())
	requireCode(t, n.call(n.plugin.Add, args), types.ErrIOFailure)
	requireCode(t, n.call(n.plugin.Del, args), types.ErrIOFailure)
}

func TestSTATUSReportsWhatStopsAnADD(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	args := n.args("", "")
	if err := n.call(n.plugin.Status, args); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(n.stateDir, "ipam")); !os.IsNotExist(err) {
		t.Errorf("STATUS made the state directory: %v", err)
	}
	if err := os.Remove(filepath.Join(n.runDir, nodefile.Name)); err != nil {
		t.Fatal(err)
	}
	requireCode(t, n.call(n.plugin.Status, args), types.ErrLimitedConnectivity)
	if err := nodefile.Write(n.runDir, nodefile.Node{PodCIDRs: n.cidrs}); err != nil {
		t.Fatal(err)
	}
	requireCode(t, n.call(n.plugin.Status, args), types.ErrLimitedConnectivity)
	conf := n.conf("1.1.0")
	conf["ipam"] = map[string]any{"type": "../host-local"}
	args.StdinData = encode(t, conf)
	requireCode(t, n.call(n.plugin.Status, args), types.ErrInvalidNetworkConfig)
	args.StdinData = []byte(`{"name": 1}`)
	requireCode(t, n.call(n.plugin.Status, args), types.ErrDecodingFailure)
}
