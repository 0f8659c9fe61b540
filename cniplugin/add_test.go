package cniplugin

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/cniplugin/wiring"
	"weft/internal/marks"
	"weft/internal/nodefile"
	"weft/ipam"
)

// steps returns the names of the wiring's steps, in their order.
func steps(t *testing.T) []string {
	t.Helper()
	n := newNode(t, families["dual stack"]...)
	var names []string
	n.plugin.runStep = func(s wiring.Step) error {
		names = append(names, s.What)
		return s.Do()
	}
	if err := n.call(n.plugin.Add, n.args("pod", newNamespace(t).Path())); err != nil {
		t.Fatal(err)
	}
	return names
}

func TestAnADDThatFailsAtAnyStepLeavesNothing(t *testing.T) {
	for _, what := range steps(t) {
		t.Run(what, func(t *testing.T) {
			n := newNode(t, families["dual stack"]...)
			pod := newNamespace(t)
			n.plugin.runStep = func(s wiring.Step) error {
				if s.What == what {
					return unix.ENOBUFS
				}
				return s.Do()
			}
			err := n.call(n.plugin.Add, n.args("pod", pod.Path()))
			requireCode(t, err, CodeWiring)
			if !strings.Contains(err.Error(), what) {
				t.Errorf("%q does not name the step", err)
			}
			n.requireNothingLeft()
			if addrs := pod.addrs(t, "eth0"); len(addrs) > 0 {
				t.Errorf("the pod has %v", addrs)
			}
			if n.out.Len() > 0 {
				t.Errorf("printed %q", n.out.String())
			}
		})
	}
}

// killAt makes the plugin stop dead before the step called what, or after all of them:
// a panic runs nothing but deferred calls, which free what the kernel frees at a death.
func killAt(t *testing.T, n *node, what string, pod namespace) {
	t.Helper()
	dying := New(&n.out)
	dying.runStep = func(s wiring.Step) error {
		if s.What == what {
			panic(errKilled)
		}
		return s.Do()
	}
	n.in(t, func() error {
		defer func() {
			if err, _ := recover().(error); !errors.Is(err, errKilled) {
				t.Errorf("the plugin was not at %q", what)
			}
		}()
		return dying.Add(n.args("pod", pod.Path()))
	})
}

// The next ADD repairs what a killed one left, and DEL removes it.
func TestAddKilledAtEveryStep(t *testing.T) {
	for _, what := range steps(t) {
		t.Run(what, func(t *testing.T) {
			n := newNode(t, families["dual stack"]...)
			pod := newNamespace(t)
			killAt(t, n, what, pod)
			if len(n.leases()) != 1 {
				t.Fatalf("leases after the kill: %v", n.leases())
			}
			if err := n.call(n.plugin.Add, n.args("pod", pod.Path())); err != nil {
				t.Fatalf("ADD after the kill: %v", err)
			}
			leases := n.leases()
			if len(leases) != 1 || len(n.podLinks()) != 1 {
				t.Fatalf("leases %v, links %v", leases, n.podLinks())
			}
			requireSameAddrs(t, pod.addrs(t, "eth0"), leases[0].Addresses)
			dial(t, n.namespace, pod, leases[0].Addresses[0])

			if err := n.call(n.plugin.Del, n.args("pod", pod.Path())); err != nil {
				t.Fatal(err)
			}
			killAt(t, n, what, pod)
			if err := n.call(n.plugin.Del, n.args("pod", pod.Path())); err != nil {
				t.Fatalf("DEL after the kill: %v", err)
			}
			n.requireNothingLeft()
		})
	}
}

// A repeated ADD is refused, and the first one is untouched.
func TestRepeatedAddIsRefused(t *testing.T) {
	n := newNode(t, families["dual stack"]...)
	pod := newNamespace(t)
	if err := n.call(n.plugin.Add, n.args("pod", pod.Path())); err != nil {
		t.Fatal(err)
	}
	before, links := n.leases(), n.podLinks()
	requireCode(t, n.call(n.plugin.Add, n.args("pod", pod.Path())), CodeAttached)
	if after := n.leases(); len(after) != 1 || after[0].Addresses[0] != before[0].Addresses[0] {
		t.Errorf("leases: before %v, after %v", before, after)
	}
	if after := n.podLinks(); len(after) != 1 || after[0] != links[0] {
		t.Errorf("links: before %v, after %v", links, after)
	}
	dial(t, n.namespace, pod, before[0].Addresses[0])
}

func TestAnADDThatIsRefusedTakesNoLease(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(t *testing.T, n *node, conf map[string]any)
		code    uint
	}{
		{"weftd has not described the node", func(t *testing.T, n *node, _ map[string]any) {
			if err := os.Remove(filepath.Join(n.runDir, nodefile.Name)); err != nil {
				t.Fatal(err)
			}
		}, types.ErrTryAgainLater},
		{"weftd's description is incomplete", func(t *testing.T, n *node, _ map[string]any) {
			if err := nodefile.Write(n.runDir, nodefile.Node{TUN: "weft0"}); err != nil {
				t.Fatal(err)
			}
		}, types.ErrTryAgainLater},
		{"another plugin has made the interface", func(_ *testing.T, n *node, conf map[string]any) {
			conf["prevResult"] = map[string]any{"cniVersion": "1.1.0", "interfaces": []any{
				map[string]any{"name": "eth0", "sandbox": n.pod.Path()},
			}}
		}, types.ErrInvalidNetworkConfig},
		{"prevResult is none", func(_ *testing.T, _ *node, conf map[string]any) {
			conf["prevResult"] = map[string]any{"cniVersion": "1.1.0", "ips": 7}
		}, types.ErrDecodingFailure},
		{"addresses come from elsewhere", func(_ *testing.T, _ *node, conf map[string]any) {
			conf["ipam"] = map[string]any{"type": "host-local"}
		}, types.ErrInvalidNetworkConfig},
		{"they come from a path", func(_ *testing.T, _ *node, conf map[string]any) {
			conf["ipam"] = map[string]any{"type": "../host-local"}
		}, types.ErrInvalidNetworkConfig},
		{"they come from a name that is none", func(_ *testing.T, _ *node, conf map[string]any) {
			conf["ipam"] = map[string]any{"type": strings.Repeat("i", 300)}
		}, types.ErrInvalidNetworkConfig},
		{"ranges of its own", func(_ *testing.T, _ *node, conf map[string]any) {
			conf["ipam"] = map[string]any{"ranges": []any{[]any{map[string]any{"subnet": "10.9.0.0/24"}}}}
		}, types.ErrInvalidNetworkConfig},
		{"a route by another gateway", func(_ *testing.T, _ *node, conf map[string]any) {
			conf["ipam"] = map[string]any{"routes": []any{map[string]any{"dst": "10.9.0.0/24", "gw": "10.244.2.9"}}}
		}, types.ErrInvalidNetworkConfig},
		{"a route of the family that the pod has not", func(_ *testing.T, _ *node, conf map[string]any) {
			conf["ipam"] = map[string]any{"routes": []any{map[string]any{"dst": "fd00::/8"}}}
		}, types.ErrInvalidNetworkConfig},
		{"an MTU that the overlay has not", func(_ *testing.T, _ *node, conf map[string]any) {
			conf["mtu"] = testMTU + 1
		}, types.ErrInvalidNetworkConfig},
		{"an address that is none", func(_ *testing.T, _ *node, conf map[string]any) {
			conf["runtimeConfig"] = map[string]any{"ips": []string{"10.244.2.300/24"}}
		}, types.ErrInvalidNetworkConfig},
		{"an address of another node", func(_ *testing.T, _ *node, conf map[string]any) {
			conf["runtimeConfig"] = map[string]any{"ips": []string{"10.244.9.3"}}
		}, CodeRefused},
		{"the state directory is relative", func(_ *testing.T, _ *node, conf map[string]any) {
			conf["stateDir"] = "var/lib/weft"
		}, types.ErrInvalidNetworkConfig},
		{"the configuration is no object", func(_ *testing.T, _ *node, conf map[string]any) {
			conf["runDir"] = 7
		}, types.ErrDecodingFailure},
		{"a foreign link has the veth's name", func(t *testing.T, n *node, _ map[string]any) {
			n.in(t, func() error {
				name := wiring.HostName(ipam.Attachment{ContainerID: "pod", IfName: "eth0"})
				return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}})
			})
		}, CodeWiring},
		{"no address is free", func(t *testing.T, n *node, _ map[string]any) {
			n.describeNode(func(node *nodefile.Node) { node.PodCIDRs, node.Addresses = n.cidrs[:1], n.own })
		}, types.ErrTryAgainLater},
		{"the MTU is none that a link can have", func(t *testing.T, n *node, _ map[string]any) {
			n.describeNode(func(node *nodefile.Node) { node.PodCIDRs, node.Addresses, node.MTU = n.cidrs[1:], nil, 1<<20 })
		}, CodeWiring},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t, "10.244.1.0/32", "10.244.2.0/24")
			n.own[0] = n.cidrs[0].Addr()
			n.pod = newNamespace(t)
			conf := n.conf("1.1.0")
			tt.prepare(t, n, conf)
			args := n.args("pod", n.pod.Path())
			args.StdinData = encode(t, conf)
			requireCode(t, n.call(n.plugin.Add, args), tt.code)
			n.requireNothingLeft()
		})
	}
}

func TestADDNeedsANamespaceOfItsOwn(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"absent": "/nowhere", "not a namespace": file, "the node's": n.Path()} {
		t.Run(name, func(t *testing.T) {
			requireCode(t, n.call(n.plugin.Add, n.args("pod", path)), types.ErrInvalidEnvironmentVariables)
		})
	}
	n.requireNothingLeft()
}

// An interface that the pod has already is not touched.
func TestAddLeavesAnExistingInterface(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	pod := newNamespace(t)
	pod.in(t, func() error { return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}}) })
	requireCode(t, n.call(n.plugin.Add, n.args("pod", pod.Path())), CodeWiring)
	n.requireNothingLeft()
	pod.in(t, func() error {
		_, err := netlink.LinkByName("eth0")
		return err
	})
}

// An address that another pod still has is not given again, though its lease is lost.
func TestAddKeepsAddressOfLostLease(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	if err := n.call(n.plugin.Add, n.args("pod-a", newNamespace(t).Path())); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(n.stateDir, "ipam")); err != nil {
		t.Fatal(err)
	}
	pod := newNamespace(t)
	requireCode(t, n.call(n.plugin.Add, n.args("pod-b", pod.Path())), CodeWiring)
	if len(n.leases()) != 0 || len(n.podLinks()) != 1 {
		t.Errorf("leases %v, links %v", n.leases(), n.podLinks())
	}
	if err := n.call(n.plugin.Add, n.args("pod-b", pod.Path())); err != nil {
		t.Errorf("ADD again: %v", err)
	}
}

// The veth is made as the guard and the operator expect it.
func TestVethAttributes(t *testing.T) {
	n := newNode(t, families["dual stack"]...)
	args := n.args("pod", newNamespace(t).Path())
	args.Args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0"
	if err := n.call(n.plugin.Add, args); err != nil {
		t.Fatal(err)
	}
	n.in(t, func() error {
		link, err := netlink.LinkByName(wiring.HostName(ipam.Attachment{ContainerID: "pod", IfName: "eth0"}))
		if err != nil {
			return err
		}
		attrs := link.Attrs()
		if want := "pod/eth0 shop/cart-0"; attrs.Alias != want {
			t.Errorf("alias %q, want %q", attrs.Alias, want)
		}
		if attrs.Group != marks.PodLinkGroup || attrs.MTU != testMTU || len(attrs.Name) != 15 {
			t.Errorf("group %d, MTU %d, name %s", attrs.Group, attrs.MTU, attrs.Name)
		}
		if attrs.Flags&net.FlagUp == 0 {
			t.Error("it is down")
		}
		return nil
	})
}

func TestAnOperationWaitsABoundedTimeForAnother(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	store, err := ipam.Open(n.stateDir, "weft")
	if err != nil {
		t.Fatal(err)
	}
	release, err := store.Hold(t.Context(), ipam.Attachment{ContainerID: "pod", IfName: "eth0"})
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	n.plugin.lockWait = 50 * time.Millisecond
	pod := newNamespace(t)
	requireCode(t, n.call(n.plugin.Add, n.args("pod", pod.Path())), types.ErrTryAgainLater)
	requireCode(t, n.call(n.plugin.Del, n.args("pod", pod.Path())), types.ErrTryAgainLater)
	if err := n.call(n.plugin.Add, n.args("another", pod.Path())); err != nil {
		t.Errorf("another pod must not wait: %v", err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("no reader") }

func TestUnwrittenResultUndoesTheADD(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	plugin := New(brokenWriter{})
	if err := n.call(plugin.Add, n.args("pod", newNamespace(t).Path())); err == nil {
		t.Error("ADD succeeded")
	}
	n.requireNothingLeft()
}

// TestAddDuringATeardownFails: a teardown that has seen no pod goes on to remove the guard.
func TestAddDuringATeardownFails(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	n.plugin.runStep = func(s wiring.Step) error {
		if err := nodefile.Remove(n.runDir); err != nil {
			t.Fatal(err)
		}
		return s.Do()
	}
	err := n.call(n.plugin.Add, n.args("pod", newNamespace(t).Path()))
	requireCode(t, err, types.ErrTryAgainLater)
	n.requireNothingLeft()
}

// A lease that cannot be given back is reported together with the cause.
func TestUndoFailureNamesTheCause(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	state := filepath.Join(n.stateDir, "ipam", "weft.json")
	n.plugin.runStep = func(wiring.Step) error {
		if err := os.WriteFile(state, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		return unix.ENOBUFS
	}
	err := n.call(n.plugin.Add, n.args("pod", newNamespace(t).Path()))
	requireCode(t, err, CodeWiring)
	for _, part := range []string{unix.ENOBUFS.Error(), state} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not contain %q", err, part)
		}
	}
}

func TestADELDuringAnADDWins(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	args := n.args("pod", newNamespace(t).Path())
	deleted := make(chan error, 1)
	n.plugin.runStep = func(s wiring.Step) error {
		if s.What == "add the pod's addresses" {
			go func() { deleted <- n.Do(func(ns.NetNS) error { return New(nil).Del(args) }) }()
			time.Sleep(50 * time.Millisecond) // DEL comes to where it must wait
		}
		return s.Do()
	}
	if err := n.call(n.plugin.Add, args); err != nil {
		t.Fatal(err)
	}
	if err := <-deleted; err != nil {
		t.Fatal(err)
	}
	n.requireNothingLeft()
}
