package main_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"weft/internal/nodefile"
	"weft/internal/testnet"
)

// etcdCluster is nodes that register in a real etcd, by TLS.
type etcdCluster struct {
	*testnet.Cluster
	etcd *testnet.Etcd
}

func newEtcdCluster(t *testing.T, nodes int, o testnet.EtcdOptions, configure func(weft map[string]any)) *etcdCluster {
	t.Helper()
	network := testnet.ForTest(t, testnet.Options{Prefix: "weftd", BinDir: binDir})
	c := &etcdCluster{}
	cluster, err := network.NewCluster(t.Context(), testnet.ClusterOptions{Nodes: nodes, Sealed: true, Configure: func(weft map[string]any) {
		if c.etcd == nil { // written again when weftd starts
			return
		}
		control, err := c.etcd.Control(weft["node"].(string))
		if err != nil {
			t.Error(err)
		}
		weft["control"] = control
		if configure != nil {
			configure(weft)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	c.Cluster = cluster
	o.TLS = true
	if c.etcd, err = network.AddEtcd(t.Context(), cluster.Segment, o); err != nil {
		t.Fatal(err)
	}
	return c
}

func startEtcdCluster(t *testing.T, nodes int, o testnet.EtcdOptions) *etcdCluster {
	t.Helper()
	c := newEtcdCluster(t, nodes, o, nil)
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventuallyPeers(t, nodes-1, c.Nodes()...)
	return c
}

// join adds a node, which must register, and expects that a pod of it and the other one
// reach each other.
func (c *etcdCluster) join(t *testing.T, pod *testnet.Pod) *testnet.Node {
	t.Helper()
	node, err := c.AddNode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventuallyPeers(t, len(c.Nodes())-1, c.Nodes()...)
	expectPings(t, pod, addPod(t, node, "pod-of-"+node.Entry().Name))
	return node
}

func (c *etcdCluster) ctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.etcd.Ctl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// expectFewLines fails if a node's weftd has written more of the log than an operator
// wants to read about one outage.
func expectFewLines(t *testing.T, node *testnet.Node, before string, most int) {
	t.Helper()
	if lines := strings.Count(strings.TrimPrefix(logs(t, node), before), "\n"); lines > most {
		t.Errorf("%s wrote %d lines, more than %d:\n%s", node.Entry().Name, lines, most, node.LogTail(lines))
	}
}

// TestForwardingNeverStopsWhateverHappensToEtcd: whatever becomes of etcd, pods talk on, the
// logs stay short, and a node that joins afterwards is known to all.
func TestForwardingNeverStopsWhateverHappensToEtcd(t *testing.T) {
	t.Parallel()
	c := startEtcdCluster(t, 2, testnet.EtcdOptions{Members: 3, QuotaBytes: 3 << 20})
	pod1, pod2 := addPod(t, c.Nodes()[0], "pod1"), addPod(t, c.Nodes()[1], "pod2")
	expectPings(t, pod1, pod2)
	var before []string
	for _, node := range c.Nodes() {
		before = append(before, logs(t, node))
	}
	exchange := startExchange(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, false))
	leader := func() int {
		t.Helper()
		member, err := c.etcd.Leader(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return member
	}

	// The leader is killed, and changes go on without it.
	killed := leader()
	c.etcd.Kill(killed)
	leader()
	c.join(t, pod1)
	if err := c.etcd.Start(t.Context(), killed); err != nil {
		t.Fatal(err)
	}

	// The next one is cut off. Meanwhile what the others did is compacted away.
	cut := leader()
	if err := c.etcd.Partition(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	leader()
	c.join(t, pod1)
	if err := c.etcd.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.etcd.Heal(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	c.ctl(t, "defrag", "--command-timeout=30s")

	// The disk quota is full: etcd takes no more writes until an operator has made room.
	eventually(t, "etcd's quota to be used up", func() error {
		_, err := c.etcd.Ctl(t.Context(), "put", "/other/"+fmt.Sprint(time.Now().UnixNano()), strings.Repeat("x", 100<<10))
		if err == nil || !strings.Contains(err.Error(), "database space exceeded") {
			return errors.Join(errors.New("there is room left"), err)
		}
		return nil
	})
	expectPings(t, pod1, pod2)
	c.ctl(t, "del", "--prefix", "/other/")
	if err := c.etcd.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.ctl(t, "defrag", "--command-timeout=30s")
	c.ctl(t, "alarm", "disarm")
	c.join(t, pod1)

	t.Logf("the longest pause of the connection was %v", exchange.stop(t).Round(time.Millisecond))
	for i, node := range c.Nodes()[:2] {
		expectFewLines(t, node, before[i], 60)
		eventuallyCurrentNow(t, node)
	}
}

// eventuallyCurrentNow waits until the newest State is active.
func eventuallyCurrentNow(t *testing.T, node *testnet.Node) {
	t.Helper()
	eventually(t, "the newest list to be active on "+node.Entry().Name, func() error {
		if metric(t, node, "weft_state_current") != "1" {
			return errors.New(weft(t, node, "status").stdout)
		}
		return nil
	})
}

// TestNodeForwardsFromItsSnapshot: restarted and killed nodes need no etcd.
func TestNodeForwardsFromItsSnapshot(t *testing.T) {
	t.Parallel()
	c := startEtcdCluster(t, 2, testnet.EtcdOptions{Members: 1})
	node := c.Nodes()[0]
	pod1, pod2 := addPod(t, node, "pod1"), addPod(t, c.Nodes()[1], "pod2")
	snapshot := filepath.Join(node.Dir(), "state", "nodes.snapshot")
	eventually(t, "the snapshot to have both nodes", func() error {
		data, err := os.ReadFile(snapshot)
		if err == nil && !strings.Contains(string(data), `"name":"node2"`) {
			err = errors.New("node2 is not in it")
		}
		return err
	})
	c.etcd.Kill(1)
	for _, end := range []string{"stopped", "killed"} {
		if end == "killed" {
			node.Kill()
		} else if err := node.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		started := time.Now()
		if err := node.Start(t.Context()); err != nil {
			t.Fatalf("%s while etcd is away: %v", end, err)
		}
		eventually(t, "the pods to reach each other", func() error { return pings(t, pod1.Namespace, addrOf(t, pod2, false)) })
		t.Logf("%s: it forwarded after %v", end, time.Since(started))
		expectPings(t, pod1, pod2)
		expectPings(t, pod1, addPod(t, node, "new-"+end))
	}
	eventually(t, "weft status to report that etcd is unreachable", func() error {
		if shown := weft(t, node, "status").stdout; !strings.Contains(shown, "NOT UP TO DATE") {
			return errors.New(shown)
		}
		return nil
	})
	if err := c.etcd.Start(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	eventuallyCurrentNow(t, node)
	c.join(t, pod1)
}

// TestANodeOfAnotherClusterForgetsTheOldOne: it keeps its name and its disk, and must trust
// none of the nodes that it knew.
func TestANodeOfAnotherClusterForgetsTheOldOne(t *testing.T) {
	t.Parallel()
	var otherCA string
	c := newEtcdCluster(t, 3, testnet.EtcdOptions{Members: 1}, func(weft map[string]any) {
		if otherCA != "" {
			weft["control"].(map[string]any)["etcd"].(map[string]any)["caFile"] = otherCA
		}
	})
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventuallyPeers(t, 2, c.Nodes()...)
	for _, node := range c.Nodes() {
		if err := node.Stop(t.Context()); err != nil { // writes the snapshot
			t.Fatal(err)
		}
	}
	c.ctl(t, "del", "--prefix", "/weft/")
	ca, err := os.ReadFile(c.etcd.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	otherCA = filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(otherCA, append([]byte("that of another cluster\n"), ca...), 0o600); err != nil {
		t.Fatal(err)
	}
	node := c.Nodes()[0]
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventuallyPeers(t, 0, node)
	eventuallyCurrentNow(t, node)
}

// TestSystemdDoesNotWaitForEtcd: it may run in the container runtime that systemd starts
// after weftd.
func TestSystemdDoesNotWaitForEtcd(t *testing.T) {
	t.Parallel()
	c := newEtcdCluster(t, 1, testnet.EtcdOptions{Members: 1}, nil)
	node := c.Nodes()[0]
	if err := node.Start(t.Context()); err != nil { // writes its configuration
		t.Fatal(err)
	}
	if err := node.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(node.Dir(), "state", "nodes.snapshot")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	c.etcd.Kill(1)
	cmd := weftd(t, node, nil)
	receive := notified(t, node, cmd)
	wait := begin(t, cmd)
	if got := receive(); got != "READY=1\nSTATUS=protected, not forwarding yet" {
		t.Errorf("the first word to systemd is %q", got)
	}
	if got := receive(); !strings.HasPrefix(got, "STATUS=not forwarding: waiting for the list of nodes from ") {
		t.Errorf("systemd does not learn what is missing: %q", got)
	}
	if got := weft(t, node, "status"); !strings.Contains(got.stdout, "NOT READY: waiting for the list of nodes from ") {
		t.Errorf("weft status does not say what is missing: exit status %d, %s%s", got.status, got.stdout, got.stderr)
	}
	if _, err := node.Get(t.Context(), "/readyz"); err == nil {
		t.Error("weftd is ready for pods")
	}
	if err := c.etcd.Start(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	for got := ""; got != "STATUS=forwarding"; {
		got = receive()
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := wait(); got.status != 0 {
		t.Errorf("exit status %d: %s", got.status, got.stderr)
	}
}

// TestAllNodesStartColdAtOnceWithEtcd: nothing but the underlay is needed to begin.
func TestAllNodesStartColdAtOnceWithEtcd(t *testing.T) {
	t.Parallel()
	c := newEtcdCluster(t, 4, testnet.EtcdOptions{Members: 3}, nil)
	for member := 1; member <= 3; member++ {
		c.etcd.Kill(member)
	}
	var starting sync.WaitGroup
	for _, node := range c.Nodes() {
		starting.Go(func() {
			if err := node.Start(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(time.Second) // weftd waits
	for member := 1; member <= 3; member++ {
		starting.Go(func() {
			if err := c.etcd.Start(t.Context(), member); err != nil {
				t.Error(err)
			}
		})
	}
	starting.Wait()
	eventuallyPeers(t, 3, c.Nodes()...)
	var pods []*testnet.Pod
	for i, node := range c.Nodes() {
		pods = append(pods, addPod(t, node, fmt.Sprintf("pod%d", i)))
	}
	expectPings(t, pods...)
}

// TestAnEmptiedEtcdWithdrawsNothing: nodes that run write themselves back, with the pod CIDRs
// that they had; those that don't run are kept until an operator lets them go.
func TestAnEmptiedEtcdWithdrawsNothing(t *testing.T) {
	t.Parallel()
	c := startEtcdCluster(t, 4, testnet.EtcdOptions{Members: 1})
	node := c.Nodes()[0]
	pod1, pod2 := addPod(t, node, "pod1"), addPod(t, c.Nodes()[1], "pod2")
	eventuallyRoutes(t, node, 3)
	before := network(t, node.Namespace)
	exchange := startExchange(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, true))

	c.ctl(t, "del", "--prefix", "/weft/")
	eventually(t, "the nodes to be registered again", func() error {
		if keys := c.ctl(t, "get", "--prefix", "--keys-only", "/weft/nodes/"); strings.Count(keys, "/weft/nodes/") != 4 {
			return errors.New(keys)
		}
		return nil
	})
	// One that comes back later than the others may be withdrawn meanwhile.
	eventuallySame(t, "the node's network", before, func() string { return network(t, node.Namespace) })

	c.Nodes()[2].Kill()
	c.Nodes()[3].Kill()
	c.ctl(t, "del", "--prefix", "/weft/")
	eventually(t, "the two that are gone to be kept", func() error {
		shown := weft(t, node, "status").stdout
		if !strings.Contains(shown, "removes 2 of 3 peers (node3, node4), which are kept") {
			return errors.New(shown)
		}
		return nil
	})
	expectSame(t, "the node's network", before, network(t, node.Namespace))
	if got := weft(t, node, "confirm"); got.status != 0 || got.stdout != "2 peers removed, 1 left\n" {
		t.Errorf("exit status %d, %s%s", got.status, got.stdout, got.stderr)
	}
	eventuallyPeers(t, 1, node)
	t.Logf("the longest pause of the connection was %v", exchange.stop(t).Round(time.Millisecond))
}

// halves has the nodes claim a half of the cluster CIDR each: there is room for two.
func halves(weft map[string]any) {
	weft["clusterCIDRs"] = []string{"10.244.0.0/16"}
	weft["control"].(map[string]any)["etcd"].(map[string]any)["maskIPv4"] = 17
}

// TestNodesKeepPodCIDRsInEmptiedEtcd: etcd is emptied while no node runs.
// By their names both would choose the same half, and the one that had to take the other one
// is back first.
func TestNodesKeepPodCIDRsInEmptiedEtcd(t *testing.T) {
	t.Parallel()
	c := newEtcdCluster(t, 3, testnet.EtcdOptions{Members: 1}, halves)
	node1, node3 := c.Nodes()[0], c.Nodes()[2]
	for _, node := range []*testnet.Node{node1, node3} {
		if err := node.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	pod1, pod3 := addPod(t, node1, "pod1"), addPod(t, node3, "pod3")
	reached := func() error { return pings(t, pod1.Namespace, addrOf(t, pod3, false)) }
	eventually(t, "the pods to reach each other", reached)
	before := map[*testnet.Node]string{}
	for _, node := range []*testnet.Node{node1, node3} {
		before[node] = fmt.Sprint(report(t, node).PodCIDRs)
		if err := node.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	c.ctl(t, "del", "--prefix", "/weft/")
	for _, node := range []*testnet.Node{node3, node1} {
		if err := node.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		name := node.Entry().Name
		eventually(t, name+" to be registered", func() error {
			if claim := c.ctl(t, "get", "--print-value-only", "/weft/podcidrs/v4/"+name); claim == "" {
				return errors.New("it has no claim")
			}
			return nil
		})
	}
	eventually(t, "the pods to reach each other again", reached)
	for node, podCIDRs := range before {
		eventuallyCurrentNow(t, node)
		if got := fmt.Sprint(report(t, node).PodCIDRs); got != podCIDRs {
			t.Errorf("%s has %s; it had %s", node.Entry().Name, got, podCIDRs)
		}
	}
	expectPingsOf(t, false, pod1, pod3)
}

// TestTheLoserOfAPodCIDRIsFenced: a node was removed while it was unreachable, and another
// one has its pod CIDR now. It gives the CIDR up, and no node accepts its packets any more.
func TestTheLoserOfAPodCIDRIsFenced(t *testing.T) {
	t.Parallel()
	c := newEtcdCluster(t, 3, testnet.EtcdOptions{Members: 1}, halves)
	node1, node2, node3 := c.Nodes()[0], c.Nodes()[1], c.Nodes()[2]
	for _, node := range []*testnet.Node{node1, node2} {
		if err := node.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	pod1, pod2 := addPod(t, node1, "pod1"), addPod(t, node2, "pod2")
	eventually(t, "node2's snapshot", func() error {
		_, err := os.Stat(filepath.Join(node2.Dir(), "state", "nodes.snapshot"))
		return err
	})
	eventually(t, "the pods to reach each other", func() error { return pings(t, pod1.Namespace, addrOf(t, pod2, false)) })

	// The third waits, and says why.
	waiting := make(chan error, 1)
	go func() { waiting <- node3.Start(t.Context()) }()
	eventually(t, "node3 to report that there is no pod CIDR left", func() error {
		if !exists(filepath.Join(node3.Dir(), "weftd.log")) {
			return errors.New("it has not begun")
		}
		if log := logs(t, node3); !strings.Contains(log, "no pod CIDR of length /17 is free in 10.244.0.0/16: 2 are claimed") {
			return errors.New(log)
		}
		return nil
	})

	node2.Kill()
	control, err := c.etcd.Control("root")
	if err != nil {
		t.Fatal(err)
	}
	operator := []string{"--config", filepath.Join(node1.Dir(), "weft.yaml")}
	for key, flag := range map[string]string{"certFile": "cert-file", "keyFile": "key-file"} {
		operator = append(operator, "--control-etcd-"+flag+"="+control["etcd"].(map[string]any)[key].(string))
	}
	if got := weft(t, node1, append([]string{"node", "remove", "node2"}, operator...)...); got.status != 0 {
		t.Fatalf("exit status %d: %s", got.status, got.stderr)
	}
	if err := <-waiting; err != nil { // node3 has it
		t.Fatal(err)
	}
	pod3 := addPod(t, node3, "pod3")
	eventually(t, "the new owner's pod to be reached", func() error { return pings(t, pod1.Namespace, addrOf(t, pod3, false)) })
	if got := weft(t, node1, append([]string{"node", "list"}, operator...)...); got.status != 0 || !strings.Contains(got.stdout, "node3") || strings.Contains(got.stdout, "node2") {
		t.Errorf("exit status %d: %s%s", got.status, got.stdout, got.stderr)
	}

	// The loser comes back, with its snapshot of a time when it was the owner. The snapshot is
	// active until etcd has answered, so Start may or may not see the node ready.
	back, cancel := context.WithCancel(t.Context())
	started := make(chan struct{})
	go func() {
		defer close(started)
		_ = node2.Start(back)
	}()
	eventually(t, "node2 to say that it has none", func() error {
		if shown := weft(t, node2, "status").stdout; !strings.Contains(shown, "NOT READY: no pod CIDR of length /17 is free") {
			return errors.New(shown)
		}
		return nil
	})
	// It says so a moment before it takes the pod CIDR from the plugin, and from its next start.
	described := filepath.Join(node2.RunDir(), nodefile.Name)
	for _, path := range []string{described, filepath.Join(node2.Dir(), "state", "nodes.snapshot")} {
		eventually(t, path+" with the former pod CIDR to go", func() error {
			if exists(path) {
				return errors.New("it is still there")
			}
			return nil
		})
	}
	if _, err := node2.AddPod(t.Context(), "late"); err == nil {
		t.Error("the loser still gives another's addresses to pods")
	}
	if _, err := node2.Get(t.Context(), "/readyz"); err == nil {
		t.Error("the loser says that it is ready")
	}
	cancel()
	<-started
	if err := pings(t, pod2.Namespace, addrOf(t, pod1, false)); err == nil {
		t.Error("the loser's pod still reaches others with another's address")
	}
	expectPingsOf(t, false, pod1, pod3)

	// It has one again as soon as one is free.
	node3.Kill()
	if got := weft(t, node1, append([]string{"node", "remove", "node3"}, operator...)...); got.status != 0 {
		t.Fatalf("exit status %d: %s", got.status, got.stderr)
	}
	eventually(t, "another pod CIDR in node.json", func() error {
		_, err := os.Stat(described)
		return err
	})
	eventually(t, "node2 to be ready", func() error {
		_, err := node2.Get(t.Context(), "/readyz")
		return err
	})
	expectPingsOf(t, false, pod1, addPod(t, node2, "new"))
}

// TestAChangedAddressIsRegisteredAndFollowed: a node gets another address, as from DHCP.
// The kernel notifies weftd, weftd writes to etcd, and etcd notifies the other nodes.
func TestAChangedAddressIsRegisteredAndFollowed(t *testing.T) {
	t.Parallel()
	c := startEtcdCluster(t, 2, testnet.EtcdOptions{Members: 1})
	node1, node2 := c.Nodes()[0], c.Nodes()[1]
	pod1, pod2 := addPod(t, node1, "pod1"), addPod(t, node2, "pod2")
	expectPings(t, pod1, pod2)

	run(t, node2.Namespace, "ip", "address", "add", "192.168.77.52/24", "dev", testnet.UnderlayLink)
	run(t, node2.Namespace, "ip", "address", "del", "192.168.77.2/24", "dev", testnet.UnderlayLink)
	run(t, node2.Namespace, "ip", "address", "add", "192.168.77.52/24", "dev", testnet.UnderlayLink)
	run(t, node2.Namespace, "ip", "route", "replace", "default", "via", testnet.OutsideUnderlay4.String())
	changed := time.Now()
	eventually(t, "node1 to send to the new address", func() error {
		if peers := report(t, node1).Peers; len(peers) != 1 || peers[0].Endpoint.String() != "192.168.77.52:9338" {
			return fmt.Errorf("the peers are %v", peers)
		}
		return nil
	})
	eventually(t, "the pods to reach each other", func() error { return pings(t, pod1.Namespace, addrOf(t, pod2, false)) })
	t.Logf("it was reached at its new address after %v", time.Since(changed))
	// node1 may know it from node2's datagrams before that.
	eventually(t, "etcd to have the new address", func() error {
		if entry := c.ctl(t, "get", "--print-value-only", "/weft/nodes/node2"); !strings.Contains(entry, "192.168.77.52:9338") {
			return errors.New(entry)
		}
		return nil
	})
}

// TestNodeBehindNATAdvertisesOutside: no interface of the node has the address that others
// reach it by.
func TestNodeBehindNATAdvertisesOutside(t *testing.T) {
	t.Parallel()
	const outside = "203.0.113.2"
	c := newEtcdCluster(t, 2, testnet.EtcdOptions{Members: 1}, func(weft map[string]any) {
		if weft["node"] == "node2" {
			weft["advertise"] = outside
		}
	})
	node1, node2 := c.Nodes()[0], c.Nodes()[1]
	// node2 is its own NAT, a stateless one: connection tracking passes datagrams over.
	run(t, node1.Namespace, "ip", "route", "add", outside, "via", "192.168.77.2")
	run(t, node2.Namespace, "nft", `table ip nat1to1 {
		chain in { type filter hook prerouting priority -400; ip daddr `+outside+` ip daddr set 192.168.77.2; }
		chain out { type filter hook postrouting priority 400; ip saddr 192.168.77.2 meta l4proto udp ip saddr set `+outside+`; }
	}`)
	if err := c.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventuallyPeers(t, 1, node1, node2)
	if peers := report(t, node1).Peers; peers[0].Endpoint.String() != outside+":9338" {
		t.Errorf("node1 sends to %s", peers[0].Endpoint)
	}
	pod1, pod2 := addPod(t, node1, "pod1"), addPod(t, node2, "pod2")
	expectPings(t, pod1, pod2)
	transfer(t, pod1.Namespace, pod2.Namespace, addrOf(t, pod2, false), 10<<20)
	if drops := report(t, node1).Drops; len(drops) > 0 {
		t.Errorf("node1 dropped %v", drops)
	}
}
