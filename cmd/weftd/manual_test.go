package main_test

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"weft/internal/manual"
	"weft/internal/testnet"
)

// stage is where the commands of a page run, as if an operator had typed them there.
type stage struct {
	at *testnet.Namespace

	// node is whose files the commands find where they are installed.
	node *testnet.Node

	// after checks what the commands have done, if that shows.
	after func(t *testing.T)
}

// stages are those of pages and of their sections; the others run on a healthy node.
var stages = map[string]func(t *testing.T) stage{
	"docs/operations/install.md#the-nodes-key":                       nodeWithoutKey,
	"docs/operations/install.md#removing-weft":                       stoppedNode,
	"docs/operations/install.md#without-wefts-programs":              stoppedNode,
	"docs/operations/troubleshoot.md#a-nodes-key-was-lost-or-stolen": nodeWithKey,
	"docs/operations/kernel-vxlan.md":                                kernelPeer,
	"docs/operations/observe.md#capturing-packets":                   nodeThatDropsPackets,
}

// runElsewhere are the sections that tests of their own follow.
var runElsewhere = map[string]bool{walkSection: true, listSection: true, etcdSection: true, quickStart: true, clusterStart: true}

// TestCommandsOfTheManual runs the commands of the operators' pages as they stand, but for those that
// are marked there with the reason.
func TestCommandsOfTheManual(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	for _, page := range manual.Operators(t) {
		blocks := map[string][]manual.Commands{}
		for _, c := range manual.CommandsOf(t, page) {
			place := page + "#" + c.Section
			if stages[place] == nil {
				place = page
			}
			used[place] = true
			if c.NotRun == "" && !runElsewhere[c.Section] {
				blocks[place] = append(blocks[place], c)
			}
		}
		for place, commands := range blocks {
			t.Run(place, func(t *testing.T) {
				t.Parallel()
				prepare := stages[place]
				if prepare == nil {
					prepare = healthyNode
				}
				s := prepare(t)
				for _, c := range commands {
					if ended := finish(t, asInstalled(t, s, c.Text)); ended.status != 0 {
						t.Errorf("%s:%d: exit status %d\n%s%s", c.Page, c.Line, ended.status, ended.stdout, ended.stderr)
					}
				}
				if s.after != nil {
					s.after(t)
				}
			})
		}
	}
	for place := range stages {
		if !used[place] {
			t.Errorf("no commands stand at %s", place)
		}
	}
}

// install puts a node's files where they are on a machine of its own. No other process sees that.
const install = `
set -e
dir=$1 bin=$2 commands=$3 name=$4
echo "$name" >/proc/sys/kernel/hostname
mount -t tmpfs none "$dir/installed"
cd "$dir/installed" # which is in /run
mkdir run folder
mount --rbind /run run
for at in etc opt var/lib run; do
	mkdir -p "upper/$at" "work/$at"
	mount -t overlay none -o "lowerdir=/$at,upperdir=upper/$at,workdir=work/$at" "/$at"
done
mkdir -p /etc/weft /etc/cni/net.d /opt/cni/bin /run/netns /run/weft /run/weft-testnet /var/lib/weft
mount --rbind run/netns /run/netns
mount --rbind run/weft-testnet /run/weft-testnet
mount --bind "$dir" /etc/weft
mount --bind "$dir/run" /run/weft
mount --bind "$dir/state" /var/lib/weft
mount --bind "$dir/cni" /etc/cni/net.d
mount --bind "$bin" /opt/cni/bin
PATH=$bin:$PATH
cd folder
exec sh -e "$commands"`

// asInstalled prepares commands to run on a stage.
func asInstalled(t *testing.T, s stage, commands string) *exec.Cmd {
	t.Helper()
	script := filepath.Join(t.TempDir(), "commands")
	if err := os.WriteFile(script, []byte(commands), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(s.node.Dir(), "installed"), 0o755); err != nil {
		t.Fatal(err)
	}
	return s.at.Command(t.Context(), "unshare", "--mount", "--uts", "sh", "-c", install, "sh", s.node.Dir(), binDir, script, s.node.Entry().Name)
}

// healthyNode is node1 of two, where pods of both nodes ping each other. The pages name these pods.
func healthyNode(t *testing.T) stage {
	t.Helper()
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true})
	node1, node2 := cluster.Nodes()[0], cluster.Nodes()[1]
	web, db := addPodOf(t, node1, "shop", "web-0"), addPodOf(t, node2, "shop", "db-0")
	if addr := addrOf(t, web, false); addr != netip.MustParseAddr("10.244.1.2") {
		t.Errorf("the pod shop/web-0 has %s", addr)
	}
	pingMeanwhile(t, web, addrOf(t, db, false))
	listener, err := cluster.Outside.Listen(t.Context(), "tcp", netip.AddrPortFrom(testnet.OutsideAddr4, 443).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return stage{at: node1.Namespace, node: node1}
}

func addPodOf(t *testing.T, node *testnet.Node, namespace, name string) *testnet.Pod {
	t.Helper()
	pod, err := node.AddPodOf(t.Context(), namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// pingMeanwhile has a pod ping an address until the end of the test.
func pingMeanwhile(t *testing.T, pod *testnet.Pod, to netip.Addr) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ping := pod.Command(ctx, "ping", "-q", "-i", "0.05", to.String())
	if err := ping.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = ping.Wait() // it was killed
	})
}

// nodeThatDropsPackets has a route of another program, which leads a pod's packets out and back.
func nodeThatDropsPackets(t *testing.T) stage {
	t.Helper()
	s := healthyNode(t)
	run(t, s.at, "ip", "route", "add", "10.244.1.99", "dev", testnet.TUNName)
	pingMeanwhile(t, addPod(t, s.node, "lost"), netip.MustParseAddr("10.244.1.99"))
	return s
}

func nodeWithoutKey(t *testing.T) stage {
	t.Helper()
	s := nodeWithKey(t)
	if err := os.Remove(s.node.KeyFile()); err != nil {
		t.Fatal(err)
	}
	return s
}

// nodeWithKey must have another key afterwards.
func nodeWithKey(t *testing.T) stage {
	t.Helper()
	node := newCluster(t, testnet.ClusterOptions{Nodes: 1, Sealed: true}).Nodes()[0]
	before := read(t, node.KeyFile())
	return stage{at: node.Namespace, node: node, after: func(t *testing.T) {
		if read(t, node.KeyFile()) == before {
			t.Error("the key was not replaced")
		}
	}}
}

// stoppedNode has all that weftd leaves behind, of which nothing must be left.
func stoppedNode(t *testing.T) stage {
	t.Helper()
	node := newCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true}).Nodes()[0]
	before := network(t, node.Namespace)
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := node.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	return stage{at: node.Namespace, node: node, after: func(t *testing.T) {
		expectSame(t, "the node's network", before, network(t, node.Namespace))
		if exists(conflist(node)) {
			t.Error("the conflist is left")
		}
	}}
}

// kernelPeer is a host without weft that becomes a peer of node1.
func kernelPeer(t *testing.T) stage {
	t.Helper()
	network := testnet.ForTest(t, testnet.Options{Prefix: "weftd", BinDir: binDir})
	cluster, err := network.NewCluster(t.Context(), testnet.ClusterOptions{Nodes: 1})
	if err != nil {
		t.Fatal(err)
	}
	peer, err := network.AddNamespace(t.Context(), "kernel")
	if err != nil {
		t.Fatal(err)
	}
	underlay := testnet.End{Namespace: peer, Link: testnet.UnderlayLink, Addrs: prefixes(kernelEndpoint+"/24", "10.244.99.1/24")}
	if err := cluster.Segment.Attach(t.Context(), underlay); err != nil {
		t.Fatal(err)
	}
	node := cluster.Nodes()[0]
	listed := node.Entry()
	listed.VTEPMAC = "02:00:00:00:00:01"
	err = node.SetNodes([]testnet.NodeEntry{listed, {
		Name: "kernel", Endpoint: netip.MustParseAddrPort(kernelEndpoint + ":9338"), VTEPMAC: kernelMAC, PodCIDRs: prefixes("10.244.99.0/24"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	pod := addPod(t, node, "a")
	return stage{at: peer, node: node, after: func(t *testing.T) {
		run(t, peer, "ping", "-c", "3", "-i", "0.1", "-W", "2", addrOf(t, pod, false).String())
	}}
}
