package cniplugin

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/nodefile"
)

// forwarded has weftd have forwarded for the last time some time ago.
func (n *node) forwarded(ago time.Duration) {
	n.t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		n.t.Fatal(err)
	}
	at := (time.Duration(now.Nano()) - ago) / time.Second
	if err := os.WriteFile(filepath.Join(n.runDir, nodefile.ForwardingName), fmt.Appendf(nil, "%d\n", at), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// STATUS fails only for what lasts: the kubelet evicts the pods of a node whose STATUS fails.
func TestStatusFailsOnlyForWhatLasts(t *testing.T) {
	n := newNode(t, "10.244.1.0/30") // one address beside the node's own
	status := func() error { return n.call(n.plugin.Status, n.args("", "")) }
	fine := func(what string) {
		t.Helper()
		if err := status(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	fine("with a free address")
	pod := n.attachPod("pod")
	fine("with a full pool")
	requireCode(t, n.call(n.plugin.Add, n.args("another", newNamespace(t).Path())), types.ErrTryAgainLater)
	if err := n.call(n.plugin.Del, n.args("pod", pod.Path())); err != nil {
		t.Fatal(err)
	}
	n.stopWeftd()
	n.nft("delete table inet weft")
	fine("right after weftd was killed and the guard removed")
	n.forwarded(25 * time.Second)
	fine("a while later")
	n.forwarded(time.Minute)
	requireCode(t, status(), types.ErrLimitedConnectivity)
	n.forwarded(0)
	fine("when weftd is back")
	if err := os.Remove(filepath.Join(n.runDir, nodefile.ForwardingName)); err != nil {
		t.Fatal(err)
	}
	requireCode(t, status(), types.ErrLimitedConnectivity) // not since the boot
	n.forwarded(0)
	if err := os.Remove(filepath.Join(n.runDir, nodefile.Name)); err != nil {
		t.Fatal(err)
	}
	requireCode(t, status(), types.ErrLimitedConnectivity)
}

// stopWeftd takes what goes with weftd's process.
func (n *node) stopWeftd() {
	n.t.Helper()
	n.in(n.t, func() error {
		link, err := netlink.LinkByName("weft0")
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
}

// Pods are added while the guard stands, whether or not weftd runs, and never without the
// guard that weftd has made.
func TestAddAsksForTheGuard(t *testing.T) {
	const table = `table inet weft { comment "made by the test"; }`
	for name, cidrs := range families {
		t.Run(name, func(t *testing.T) {
			n, pod := newNode(t, cidrs...), newNamespace(t)
			args := n.args("pod", pod.Path())
			conf := n.conf("1.1.0")
			conf["prevResult"] = map[string]any{"cniVersion": "1.1.0"}
			check := n.args("pod", pod.Path())
			check.StdinData = encode(t, conf)
			refused := func() {
				t.Helper()
				requireCode(t, n.call(n.plugin.Add, args), types.ErrTryAgainLater)
				requireCode(t, n.call(n.plugin.Check, check), types.ErrTryAgainLater)
				n.requireNothingLeft()
			}
			n.nft("delete table inet weft")
			refused()
			n.nft(`table ip weft { comment "made by the test"; }`)
			refused()
			n.nft(`table inet weft { comment "another's"; }`)
			refused()
			n.nft("delete table inet weft")
			n.nft(table)
			n.describeNode(func(node *nodefile.Node) { node.Guard.Rules = 3 }) // of which none is left
			refused()
			n.nft("delete table inet weft")
			n.nft("add table inet weft")
			n.describeNode(func(node *nodefile.Node) { node.Guard = (nodefile.Node{}).Guard }) // by an older weftd
			refused()
			n.nft("delete table inet weft")
			n.nft(table)
			n.describeNode(func(node *nodefile.Node) { node.Guard.Comment = "made by the test" })

			n.stopWeftd()
			n.forwarded(time.Hour)
			if err := n.call(n.plugin.Add, args); err != nil {
				t.Fatalf("with the guard, without weftd: %v", err)
			}
			addrs := addrsOf(t, n.printed(t))
			// When weftd is back, the node speaks to the pod from its own address.
			n.in(t, n.makeTUN)
			n.reconcile()
			for i, addr := range addrs {
				if from := dial(t, n.namespace, pod, addr); from != n.own[i] {
					t.Errorf("the node is seen as %s, has %s", from, n.own[i])
				}
			}
			expect(t, n.reconcile())
			if err := n.call(n.plugin.Del, args); err != nil {
				t.Fatal(err)
			}
		})
	}
}
