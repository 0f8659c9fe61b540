package kubernetes

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/internal/status"
	"weft/internal/testnet"
)

// check fails the test at once if there is an error, with the ends of the nodes' logs.
func check(t *testing.T, err error, nodes ...*testnet.Node) {
	t.Helper()
	if err == nil {
		return
	}
	for _, n := range nodes {
		err = fmt.Errorf("%w\n%s", err, n.LogTail(15))
	}
	t.Fatal(err)
}

const shippedManifests = "../deploy/kubernetes/rights"

func awaitRegistered(t *testing.T, w *Weft, n *testnet.Node) {
	t.Helper()
	_, err := w.AwaitRegistered(t.Context(), n)
	check(t, err, n)
}

func awaitStatus(t *testing.T, n *testnet.Node, cond func(status.Report) error) status.Report {
	t.Helper()
	report, err := AwaitStatus(t.Context(), n, cond)
	check(t, err, n)
	return report
}

func awaitMetric(t *testing.T, n *testnet.Node, metric string, value int) {
	t.Helper()
	check(t, AwaitMetric(t.Context(), n, metric, value), n)
}

// podNetwork is a PodNetwork whose methods fail the test.
type podNetwork struct{ *PodNetwork }

func newPodNetwork(t *testing.T) *podNetwork {
	t.Helper()
	n := newNet(t)
	p, err := NewPodNetwork(t.Context(), n, testnet.ClusterOptions{Nodes: 2, Sealed: true})
	check(t, err)
	started := time.Now()
	p.Kubernetes, err = n.NewKubernetes(t.Context(), p.Cluster, testnet.APIServerOptions{BinDir: kubernetesPrograms})
	check(t, err)
	t.Logf("all programs ran after %v", time.Since(started).Round(time.Millisecond))
	check(t, p.Permit(t.Context(), p.Kubernetes.APIServer, shippedManifests))
	return &podNetwork{p}
}

func (p *podNetwork) podCIDRs(t *testing.T, n *testnet.Node) []netip.Prefix {
	t.Helper()
	cidrs, err := p.PodCIDRs(t.Context(), n)
	check(t, err)
	return cidrs
}

// pods returns those of an app in the namespace spread.
func (p *podNetwork) pods(t *testing.T, app string, want int) []core.Pod {
	t.Helper()
	pods, err := p.Pods(t.Context(), "spread", app, want)
	check(t, err)
	return pods
}

// expectAllReachEachOther has every pod ask all others by all their addresses. Each server
// must see the pod's own address.
func (p *podNetwork) expectAllReachEachOther(t *testing.T, pods []core.Pod) {
	t.Helper()
	for _, from := range pods {
		for _, to := range pods {
			for i, ip := range to.Status.PodIPs {
				p.expectSource(t, &from, net.JoinHostPort(ip.IP, "80"), from.Status.PodIPs[i].IP)
			}
		}
	}
}

// expectSource asks a web server from within a pod. The server must see the given address.
func (p *podNetwork) expectSource(t *testing.T, from *core.Pod, server, want string) {
	t.Helper()
	check(t, waitALittle(t.Context(), from.Name+" to reach "+server, func(ctx context.Context) error {
		answer, err := p.Admin.AskFrom(ctx, from, server)
		if err != nil {
			return err
		}
		return answer.mustName(want)
	}))
}

// mustName checks the client's address in the answer.
func (a Answer) mustName(want string) error {
	if a.Client != netip.MustParseAddr(want) {
		return fmt.Errorf("it was asked by %s, want %s", a.Client, want)
	}
	return nil
}

func TestWeftIsThePodNetworkOfKubernetes(t *testing.T) {
	p := newPodNetwork(t)
	for _, subtest := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"nodes get ready with weftd", p.nodesGetReady},
		{"pods and Services are reached", func(t *testing.T) { expectPodsAndService(t, p.Admin) }},
		{"pods of a Deployment reach each other and the nodes", p.allReachEachOther},
		{"a host port is reached", p.hostPortIsReached},
		{"weftd starts while the API server is away", p.weftdStartsAlone},
		{"hostile Nodes are rejected", p.hostileNodesAreRejected},
		{"a node goes and comes back", p.nodeGoesAndComesBack},
		{"no lease outlives its pod", p.noLeaseOutlivesItsPod},
	} {
		if !t.Run(subtest.name, subtest.run) {
			return // the next ones need what it has left
		}
	}
}

func (p *podNetwork) nodesGetReady(t *testing.T) {
	for _, n := range p.Cluster.Nodes() {
		node, err := p.AwaitAdmitted(t.Context(), n)
		if check(t, err); NodeReady(node) == nil {
			t.Errorf("%s is ready without a network", n.Entry().Name)
		}
	}
	started := time.Now()
	if err := p.Cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("the weftds were ready after %v", time.Since(started).Round(time.Millisecond))
	for i, n := range p.Cluster.Nodes() {
		awaitRegistered(t, p.Weft, n)
		if _, err := p.Admin.WaitNode(t.Context(), n.Entry().Name, NodeReady); err != nil {
			t.Fatal(err)
		}
		other := p.Cluster.Nodes()[1-i]
		report := awaitStatus(t, n, PeersAre(other.Entry().Name)) // what the command `weft status` shows
		endpoint := other.Entry().Endpoint
		behind := append(p.podCIDRs(t, other), netip.PrefixFrom(endpoint.Addr(), 32))
		if peer := report.Peers[0]; peer.Endpoint != endpoint || !slices.Equal(peer.Prefixes, behind) {
			t.Errorf("%s takes its peer for %+v", n.Entry().Name, peer)
		}
	}
	t.Logf("the nodes were ready %v after the weftds were started", time.Since(started).Round(time.Millisecond))
}

func (p *podNetwork) allReachEachOther(t *testing.T) {
	if err := p.Admin.Apply(t.Context(), "testdata/spread"); err != nil {
		t.Fatal(err)
	}
	pods := p.pods(t, "spread", 4)
	on := make(map[string]int)
	for _, pod := range pods {
		on[pod.Spec.NodeName]++
	}
	if on["node1"] != 2 || on["node2"] != 2 {
		t.Errorf("the pods on the nodes: %v", on)
	}
	p.expectAllReachEachOther(t, pods)

	for _, host := range p.pods(t, "host", 2) {
		number := slices.IndexFunc(p.Cluster.Nodes(), func(n *testnet.Node) bool { return n.Entry().Name == host.Spec.NodeName }) + 1
		own := p.podCIDRs(t, p.Node(number))
		for _, pod := range pods {
			for i, ip := range pod.Status.PodIPs {
				// A node speaks to pods from the first address of its pod CIDR.
				p.expectSource(t, &host, net.JoinHostPort(ip.IP, "80"), own[i].Addr().Next().String())
			}
			server := net.JoinHostPort(host.Status.HostIP, "8080")
			p.expectSource(t, &pod, server, pod.Status.PodIP)
		}
	}
}

func (p *podNetwork) hostPortIsReached(t *testing.T) {
	p.pods(t, "host-port", 1)
	node1, node2 := p.Node(1).Entry().Endpoint.Addr(), p.Node(2).Entry().Endpoint.Addr()
	server := netip.AddrPortFrom(node2, 8081).String()
	for _, c := range []struct {
		from   *testnet.Namespace
		server string
		want   netip.Addr
	}{
		{p.Node(1).Namespace, server, node1},
		{p.Cluster.Outside, server, testnet.OutsideUnderlay4},
		{p.Node(1).Namespace, "[fd00:77::2]:8081", netip.MustParseAddr("fd00:77::1")},
		{p.Cluster.Outside, "[fd00:77::2]:8081", testnet.OutsideUnderlay6},
	} {
		out, err := c.from.Exec(t.Context(), "busybox", "wget", "-q", "-O", "-", WhoamiURL(c.server))
		check(t, err)
		if answer, err := ParseAnswer(out); err != nil || answer != (Answer{Server: "host-port", Client: c.want}) {
			t.Errorf("%s: %+v, %v", c.server, answer, err)
		}
	}
	for _, pod := range p.pods(t, "spread", 4) {
		if pod.Spec.NodeName == "node1" {
			p.expectSource(t, &pod, server, pod.Status.PodIP)
		}
	}
}

func (p *podNetwork) weftdStartsAlone(t *testing.T) {
	node1 := p.Node(1)
	check(t, p.Snapshot(t.Context(), node1))
	var here, there core.Pod
	for _, pod := range p.pods(t, "spread", 4) {
		if pod.Spec.NodeName == "node1" {
			here = pod
		} else {
			there = pod
		}
	}
	inside, err := p.Command(t.Context(), &here)
	check(t, err)

	p.Server.Kill()
	node1.Kill()
	before, err := node1.Logs()
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	if err := node1.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ready := time.Since(started)
	err = waitALittle(t.Context(), "a pod of the other node", func(ctx context.Context) error {
		out, err := inside(ctx, "busybox", "wget", "-q", "-O", "-", WhoamiURL(there.Status.PodIP)).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		answer, err := ParseAnswer(string(out))
		if err != nil {
			return err
		}
		return answer.mustName(here.Status.PodIP)
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, node1.LogTail(15))
	}
	t.Logf("weftd was ready after %v, and a pod of the other node reached after %v",
		ready.Round(time.Millisecond), time.Since(started).Round(time.Millisecond))

	const away = 3 * time.Second
	time.Sleep(away)
	after, err := node1.Logs()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Count(after, "\n") - strings.Count(before, "\n")
	t.Logf("without an API server it wrote %d lines in %v", lines, away)
	if lines > 20 {
		t.Errorf("it wrote:\n%s", after[len(before):])
	}
	awaitMetric(t, node1, "weft_state_current", 0)
	if err := p.Server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	started = time.Now()
	awaitMetric(t, node1, "weft_state_current", 1)
	t.Logf("the list of nodes was current %v after the API server was back", time.Since(started).Round(time.Millisecond))
}

func (p *podNetwork) hostileNodesAreRejected(t *testing.T) {
	node1, node2 := p.Node(1), p.Node(2)
	theirs := p.podCIDRs(t, node2)[0].String()
	for name, hostile := range map[string]struct{ podCIDR, endpoint, key string }{
		"thief":  {theirs, "192.168.77.66:9338", strings.Repeat("66", 32)},
		"babble": {"10.244.66.0/24", "not an address\n\x1b[2J", "nor a key"},
	} {
		n := &core.Node{ObjectMeta: meta.ObjectMeta{Name: name, Annotations: map[string]string{
			"weft.network/endpoint": hostile.endpoint, "weft.network/key": hostile.key,
		}}}
		n.Spec.PodCIDR, n.Spec.PodCIDRs, n.Spec.Unschedulable = hostile.podCIDR, []string{hostile.podCIDR}, true
		if _, err := p.Admin.CoreV1().Nodes().Create(t.Context(), n, meta.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []*testnet.Node{node1, node2} {
		awaitMetric(t, n, "weft_nodes_rejected", 1) // one or more
		report := awaitStatus(t, n, func(r status.Report) error {
			if !strings.Contains(r.State.RejectedNodes, "thief") || !strings.Contains(r.State.RejectedNodes, "babble") {
				return fmt.Errorf("rejected are: %q", r.State.RejectedNodes)
			}
			return nil
		})
		if len(report.Peers) != 1 {
			t.Errorf("%s has the peers %+v", n.Entry().Name, report.Peers)
		}
		t.Logf("rejected:\n%s", report.State.RejectedNodes)
	}
	p.expectAllReachEachOther(t, p.pods(t, "spread", 4))
	for _, name := range []string{"thief", "babble"} {
		if err := p.Admin.CoreV1().Nodes().Delete(t.Context(), name, meta.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	awaitMetric(t, node1, "weft_nodes_rejected", 0)
}

func (p *podNetwork) nodeGoesAndComesBack(t *testing.T) {
	node1, node2 := p.Node(1), p.Node(2)
	before := p.podCIDRs(t, node2)
	if found, err := Routes(t.Context(), node1, before); err != nil || len(found) != len(before) {
		t.Errorf("there are routes to %v only, want %v (%v)", found, before, err)
	}
	check(t, p.Drain(t.Context(), "node2"))
	kubelet := p.Kubernetes.Nodes[1].Kubelet
	if err := kubelet.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Admin.CoreV1().Nodes().Delete(t.Context(), "node2", meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	deleted := time.Now()
	awaitStatus(t, node1, PeersAre())
	t.Logf("the peer was withdrawn %v after its Node was deleted", time.Since(deleted).Round(time.Millisecond))
	awaitMetric(t, node1, "weft_state_current", 1)
	if err := AwaitNoRoutes(t.Context(), node1, before); err != nil {
		t.Error(err)
	}

	started := time.Now()
	if err := kubelet.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := p.AwaitAdmitted(t.Context(), node2)
	check(t, err)
	t.Logf("node2 had %v, and now has %v", before, p.podCIDRs(t, node2))
	if err := node2.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitRegistered(t, p.Weft, node2)
	if _, err := p.Admin.WaitNode(t.Context(), "node2", NodeReady); err != nil {
		t.Fatal(err)
	}
	awaitStatus(t, node1, PeersAre("node2"))
	t.Logf("node2 was back after %v", time.Since(started).Round(time.Millisecond))

	// The Deployment had to have all its pods on node1.
	err = p.Admin.CoreV1().Pods("spread").DeleteCollection(t.Context(), meta.DeleteOptions{}, meta.ListOptions{LabelSelector: "app=spread"})
	if err != nil {
		t.Fatal(err)
	}
	pods := p.pods(t, "spread", 4)
	if !slices.ContainsFunc(pods, func(pod core.Pod) bool { return pod.Spec.NodeName == "node2" }) {
		t.Error("no pod is on node2")
	}
	p.expectAllReachEachOther(t, pods)
}

func (p *podNetwork) noLeaseOutlivesItsPod(t *testing.T) {
	for _, namespace := range []string{"spread", "web"} {
		if err := p.Admin.CoreV1().Namespaces().Delete(t.Context(), namespace, meta.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range p.Cluster.Nodes() {
		if err := AwaitNothingHeld(t.Context(), n, filepath.Join(weftPrograms, "weft")); err != nil {
			t.Errorf("%v\n%s", err, n.LogTail(10))
		}
	}
}
