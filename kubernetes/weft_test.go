package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft/internal/status"
	"weft/internal/testnet"
)

const (
	// littleWhile is more than anything takes here, on a machine that others use too.
	littleWhile = 25 * time.Second

	// aloneLimit is for a weftd to forward again that finds no API server.
	aloneLimit = 2 * time.Second
)

// waitALittle is Wait with a limit that leaves time to tell what was the matter.
func waitALittle(t *testing.T, what string, cond func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(t.Context(), littleWhile)
	defer cancel()
	return Wait(ctx, what, cond)
}

// weftRig is a cluster whose nodes' weftds find each other in an API server, each with a
// token of its own Node.
type weftRig struct {
	server  *testnet.APIServer
	admin   *Client
	cluster *testnet.Cluster

	// kubeconfigs are the nodes', as far as they were given one.
	kubeconfigs map[string]string
}

// newWeftRig makes a cluster in which nothing runs yet. The option Configure is to follow.
func newWeftRig(t *testing.T, n *testnet.Net, nodes int, configure func(weft map[string]any)) *weftRig {
	t.Helper()
	r := &weftRig{kubeconfigs: make(map[string]string)}
	var err error
	r.cluster, err = n.NewCluster(t.Context(), testnet.ClusterOptions{Nodes: nodes, Sealed: true, Configure: func(weft map[string]any) {
		weft["clusterCIDRs"] = testnet.KubernetesPodCIDRs
		if kubeconfig, ok := r.kubeconfigs[weft["node"].(string)]; ok {
			weft["control"] = map[string]any{"kubernetes": map[string]any{"kubeconfig": kubeconfig}}
		}
		configure(weft)
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// permit applies weft's rights to the API server.
func (r *weftRig) permit(t *testing.T, server *testnet.APIServer) {
	t.Helper()
	r.server, r.admin = server, admin(t, server)
	if err := r.admin.Apply(t.Context(), "../deploy/kubernetes"); err != nil {
		t.Fatal(err)
	}
}

// giveToken gives a node a token that is bound to the Node of its name as that is now.
// Its weftd uses it from its next start on.
func (r *weftRig) giveToken(t *testing.T, node string) {
	t.Helper()
	token, err := r.admin.NodeToken(t.Context(), weftNamespace, weftAccount, node)
	if err != nil {
		t.Fatal(err)
	}
	if r.kubeconfigs[node], err = r.server.TokenKubeconfig("weft-"+node, token); err != nil {
		t.Fatal(err)
	}
}

func (r *weftRig) node(number int) *testnet.Node { return r.cluster.Nodes()[number-1] }

// awaitRegistered returns the Node as soon as weftd has said there where it is, and that
// the network is up.
func (r *weftRig) awaitRegistered(t *testing.T, n *testnet.Node) *core.Node {
	t.Helper()
	want := map[string]string{"weft.network/endpoint": n.Entry().Endpoint.String(), "weft.network/key": n.Entry().Key}
	node, err := r.admin.WaitNode(t.Context(), n.Entry().Name, func(node *core.Node) error {
		for key, value := range want {
			if node.Annotations[key] != value {
				return fmt.Errorf("its annotation %s is %q, want %q", key, node.Annotations[key], value)
			}
		}
		for _, c := range node.Status.Conditions {
			if c.Type == core.NodeNetworkUnavailable && c.Status == core.ConditionFalse {
				return nil
			}
		}
		return fmt.Errorf("its conditions are %v", node.Status.Conditions)
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, n.LogTail(10))
	}
	return node
}

// awaitStatus returns what a weftd tells of itself as soon as cond returns nil for it.
func awaitStatus(t *testing.T, n *testnet.Node, cond func(status.Report) error) (report status.Report) {
	t.Helper()
	err := waitALittle(t, n.Entry().Name+"'s status", func(ctx context.Context) (err error) {
		if report, err = status.Fetch(ctx, n.Socket()); err != nil {
			return err
		}
		return cond(report)
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, n.LogTail(10))
	}
	return report
}

// peersAre is a condition for awaitStatus.
func peersAre(want ...string) func(status.Report) error {
	return func(r status.Report) error {
		var names []string
		for _, p := range r.Peers {
			names = append(names, p.Name)
		}
		if slices.Sort(names); !slices.Equal(names, want) {
			return fmt.Errorf("its peers are %v, want %v; %+v", names, want, r.State)
		}
		return nil
	}
}

// awaitMetric waits until a metric without labels has a value.
func awaitMetric(t *testing.T, n *testnet.Node, metric string, value int) {
	t.Helper()
	err := waitALittle(t, metric, func(ctx context.Context) error {
		text, err := n.Get(ctx, "/metrics")
		if err == nil && !strings.Contains(text, fmt.Sprintf("\n%s %d\n", metric, value)) {
			err = fmt.Errorf("it is not %d", value)
		}
		return err
	})
	if err != nil {
		t.Errorf("%v\n%s", err, n.LogTail(10))
	}
}

// podNetwork is a whole Kubernetes whose only network is weft.
type podNetwork struct {
	*weftRig
	k *testnet.Kubernetes
}

func newPodNetwork(t *testing.T) *podNetwork {
	t.Helper()
	n := newNet(t)
	p := &podNetwork{}
	p.weftRig = newWeftRig(t, n, 2, func(weft map[string]any) {
		if p.k != nil {
			cni := weft["cni"].(map[string]any)
			cni["binDir"], cni["chain"] = p.k.PluginDir(), []string{"portmap"}
		}
	})
	started := time.Now()
	var err error
	if p.k, err = n.NewKubernetes(t.Context(), p.cluster, testnet.APIServerOptions{BinDir: kubernetesPrograms}); err != nil {
		t.Fatal(err)
	}
	t.Logf("all programs ran after %v", time.Since(started).Round(time.Millisecond))
	p.permit(t, p.k.APIServer)
	return p
}

// awaitAdmitted waits until Kubernetes has given the node its pod CIDRs and waits for a
// network, and gives it its token.
func (p *podNetwork) awaitAdmitted(t *testing.T, n *testnet.Node) {
	t.Helper()
	_, err := p.admin.WaitNode(t.Context(), n.Entry().Name, func(node *core.Node) error {
		if len(node.Spec.PodCIDRs) != 2 {
			return fmt.Errorf("its pod CIDRs are %v", node.Spec.PodCIDRs)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	p.giveToken(t, n.Entry().Name)
}

// podCIDRs are those that Kubernetes gave to a node.
func (p *podNetwork) podCIDRs(t *testing.T, n *testnet.Node) (cidrs []netip.Prefix) {
	t.Helper()
	node, err := p.admin.CoreV1().Nodes().Get(t.Context(), n.Entry().Name, meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range node.Spec.PodCIDRs {
		cidrs = append(cidrs, netip.MustParsePrefix(text))
	}
	return cidrs
}

// pods returns the pods of an app in the namespace spread as soon as so many are ready.
func (p *podNetwork) pods(t *testing.T, app string, want int) (pods []core.Pod) {
	t.Helper()
	err := waitALittle(t, "the pods of "+app, func(ctx context.Context) error {
		list, err := p.admin.CoreV1().Pods("spread").List(ctx, meta.ListOptions{LabelSelector: "app=" + app})
		if err != nil {
			return err
		}
		pods = slices.DeleteFunc(list.Items, func(pod core.Pod) bool { return pod.DeletionTimestamp != nil })
		if len(pods) != want {
			return fmt.Errorf("there are %d, want %d", len(pods), want)
		}
		for i := range pods {
			if err := PodReady(&pods[i]); err != nil {
				return fmt.Errorf("%s: %w", pods[i].Name, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return pods
}

// expectAllReachEachOther has every pod ask all others by all their addresses. Each must
// be seen as who it is.
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

// expectSource asks a web server from within a pod, who must see the given address, or one
// in the given prefix.
func (p *podNetwork) expectSource(t *testing.T, from *core.Pod, server, want string) {
	t.Helper()
	err := waitALittle(t, from.Name+" to reach "+server, func(ctx context.Context) error {
		out, err := p.admin.Exec(ctx, from.Namespace, from.Name, "wget", "-q", "-O", "-", "http://"+server+"/cgi-bin/whoami")
		if err != nil {
			return err
		}
		return sawSource(out, want)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sawSource checks what whoami has answered.
func sawSource(answer, want string) error {
	_, text, _ := strings.Cut(strings.TrimSpace(answer), " ")
	source, err := netip.ParseAddr(strings.Trim(text, "[]"))
	if err != nil {
		return fmt.Errorf("the answer is %q", answer)
	}
	if source.Unmap() != netip.MustParseAddr(want) {
		return fmt.Errorf("it was asked by %s, want %s", source, want)
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
		{"pods and Services are reached", func(t *testing.T) { expectPodsAndService(t, p.admin) }},
		{"pods of a Deployment reach each other and the nodes", p.allReachEachOther},
		{"a host port is reached", p.hostPortIsReached},
		{"weftd starts while the API server is away", p.weftdStartsAlone},
		{"hostile Nodes are left out", p.hostileNodesAreLeftOut},
		{"a node goes and comes back", p.nodeGoesAndComesBack},
		{"no lease outlives its pod", p.noLeaseOutlivesItsPod},
	} {
		if !t.Run(subtest.name, subtest.run) {
			return // the next ones need what it has left
		}
	}
}

func (p *podNetwork) nodesGetReady(t *testing.T) {
	for _, n := range p.cluster.Nodes() {
		p.awaitAdmitted(t, n)
		node, err := p.admin.CoreV1().Nodes().Get(t.Context(), n.Entry().Name, meta.GetOptions{})
		if err != nil || NodeReady(node) == nil {
			t.Errorf("%s is ready without a network (%v)", n.Entry().Name, err)
		}
	}
	started := time.Now()
	if err := p.cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("the weftds were ready after %v", time.Since(started).Round(time.Millisecond))
	for i, n := range p.cluster.Nodes() {
		p.awaitRegistered(t, n)
		if _, err := p.admin.WaitNode(t.Context(), n.Entry().Name, NodeReady); err != nil {
			t.Fatal(err)
		}
		other := p.cluster.Nodes()[1-i]
		report := awaitStatus(t, n, peersAre(other.Entry().Name)) // what the command `weft status` shows
		endpoint := other.Entry().Endpoint
		behind := append(p.podCIDRs(t, other), netip.PrefixFrom(endpoint.Addr(), 32))
		if peer := report.Peers[0]; peer.Endpoint != endpoint || !slices.Equal(peer.Prefixes, behind) {
			t.Errorf("%s takes its peer for %+v", n.Entry().Name, peer)
		}
	}
	t.Logf("the nodes were ready %v after the weftds were started", time.Since(started).Round(time.Millisecond))
}

func (p *podNetwork) allReachEachOther(t *testing.T) {
	if err := p.admin.Apply(t.Context(), "testdata/spread"); err != nil {
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
		number := slices.IndexFunc(p.cluster.Nodes(), func(n *testnet.Node) bool { return n.Entry().Name == host.Spec.NodeName }) + 1
		own := p.podCIDRs(t, p.node(number))
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
	node2 := p.node(2).Entry().Endpoint.Addr()
	server := netip.AddrPortFrom(node2, 8081).String()
	for want, from := range map[netip.Addr]*testnet.Namespace{
		p.node(1).Entry().Endpoint.Addr(): p.node(1).Namespace,
		testnet.OutsideUnderlay4:          p.cluster.Outside,
	} {
		out, err := from.Exec(t.Context(), "busybox", "wget", "-q", "-O", "-", "http://"+server+"/cgi-bin/whoami")
		if err == nil {
			err = sawSource(out, want.String())
		}
		if err != nil || !strings.HasPrefix(out, "host-port ") {
			t.Errorf("%q, %v", out, err)
		}
	}
	for _, pod := range p.pods(t, "spread", 4) {
		if pod.Spec.NodeName == "node1" {
			p.expectSource(t, &pod, server, pod.Status.PodIP)
		}
	}
}

func (p *podNetwork) weftdStartsAlone(t *testing.T) {
	node1 := p.node(1)
	snapshot := filepath.Join(node1.Dir(), "state", "nodes.snapshot")
	err := waitALittle(t, "the snapshot", func(context.Context) error {
		content, err := os.ReadFile(snapshot)
		if err == nil && (!strings.Contains(string(content), "node1") || !strings.Contains(string(content), "node2")) {
			err = fmt.Errorf("it doesn't hold both nodes")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var here, there core.Pod
	for _, pod := range p.pods(t, "spread", 4) {
		if pod.Spec.NodeName == "node1" {
			here = pod
		} else {
			there = pod
		}
	}
	inside := p.podNamespace(t, &here)

	p.server.Kill()
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
	err = waitALittle(t, "a pod of the other node", func(ctx context.Context) error {
		out, err := inside(ctx, "busybox", "wget", "-q", "-O", "-", "http://"+there.Status.PodIP+"/cgi-bin/whoami").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return sawSource(string(out), here.Status.PodIP)
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, node1.LogTail(15))
	}
	reached := time.Since(started)
	t.Logf("weftd was ready after %v, and a pod of the other node reached after %v", ready.Round(time.Millisecond), reached.Round(time.Millisecond))
	if reached > aloneLimit {
		t.Errorf("it took longer than %v", aloneLimit)
	}

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
	if err := p.server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	started = time.Now()
	awaitMetric(t, node1, "weft_state_current", 1)
	t.Logf("the list of nodes was current %v after the API server was back", time.Since(started).Round(time.Millisecond))
}

// podNamespace returns what prepares a program to run in a pod's network. It needs no API
// server.
func (p *podNetwork) podNamespace(t *testing.T, pod *core.Pod) func(ctx context.Context, name string, args ...string) *exec.Cmd {
	t.Helper()
	for _, n := range p.k.Nodes {
		if n.NodeName() != pod.Spec.NodeName {
			continue
		}
		_, id, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
		out, err := n.Inside(t.Context(), "ctr", "--namespace", "k8s.io", "tasks", "list").Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			if words := strings.Fields(line); words[0] == id {
				return func(ctx context.Context, name string, args ...string) *exec.Cmd {
					return n.Inside(ctx, "nsenter", append([]string{"--net=/proc/" + words[1] + "/ns/net", "--", name}, args...)...)
				}
			}
		}
	}
	t.Fatalf("the container of %s is not found", pod.Name)
	return nil
}

func (p *podNetwork) hostileNodesAreLeftOut(t *testing.T) {
	node1, node2 := p.node(1), p.node(2)
	theirs := p.podCIDRs(t, node2)[0].String()
	for name, hostile := range map[string]struct{ podCIDR, endpoint, key string }{
		"thief":  {theirs, "192.168.77.66:9338", strings.Repeat("66", 32)},
		"babble": {"10.244.66.0/24", "not an address\n\x1b[2J", "nor a key"},
	} {
		n := &core.Node{ObjectMeta: meta.ObjectMeta{Name: name, Annotations: map[string]string{
			"weft.network/endpoint": hostile.endpoint, "weft.network/key": hostile.key,
		}}}
		n.Spec.PodCIDR, n.Spec.PodCIDRs, n.Spec.Unschedulable = hostile.podCIDR, []string{hostile.podCIDR}, true
		if _, err := p.admin.CoreV1().Nodes().Create(t.Context(), n, meta.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []*testnet.Node{node1, node2} {
		awaitMetric(t, n, "weft_nodes_left_out", 1) // one or more
		report := awaitStatus(t, n, func(r status.Report) error {
			if !strings.Contains(r.State.LeftOut, "thief") || !strings.Contains(r.State.LeftOut, "babble") {
				return fmt.Errorf("left out are: %q", r.State.LeftOut)
			}
			return nil
		})
		if len(report.Peers) != 1 {
			t.Errorf("%s has the peers %+v", n.Entry().Name, report.Peers)
		}
		t.Logf("left out:\n%s", report.State.LeftOut)
	}
	p.expectAllReachEachOther(t, p.pods(t, "spread", 4))
	for _, name := range []string{"thief", "babble"} {
		if err := p.admin.CoreV1().Nodes().Delete(t.Context(), name, meta.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	awaitMetric(t, node1, "weft_nodes_left_out", 0)
}

func (p *podNetwork) nodeGoesAndComesBack(t *testing.T) {
	node1, node2 := p.node(1), p.node(2)
	before := p.podCIDRs(t, node2)
	if found := routes(t, node1, before); len(found) != len(before) {
		t.Errorf("there are routes to %v only, want %v", found, before)
	}
	p.drain(t, "node2")
	kubelet := p.k.Nodes[1].Kubelet
	if err := kubelet.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.admin.CoreV1().Nodes().Delete(t.Context(), "node2", meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	deleted := time.Now()
	awaitStatus(t, node1, peersAre())
	t.Logf("the peer was withdrawn %v after its Node was deleted", time.Since(deleted).Round(time.Millisecond))
	awaitMetric(t, node1, "weft_state_current", 1)
	err := waitALittle(t, "the routes to go", func(context.Context) error {
		if found := routes(t, node1, before); len(found) > 0 {
			return fmt.Errorf("there are routes to %v", found)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}

	started := time.Now()
	if err := kubelet.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.awaitAdmitted(t, node2)
	t.Logf("node2 had %v, and now has %v", before, p.podCIDRs(t, node2))
	if err := node2.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.awaitRegistered(t, node2)
	if _, err := p.admin.WaitNode(t.Context(), "node2", NodeReady); err != nil {
		t.Fatal(err)
	}
	awaitStatus(t, node1, peersAre("node2"))
	t.Logf("node2 was back after %v", time.Since(started).Round(time.Millisecond))

	// The Deployment had to have all its pods on node1.
	err = p.admin.CoreV1().Pods("spread").DeleteCollection(t.Context(), meta.DeleteOptions{}, meta.ListOptions{LabelSelector: "app=spread"})
	if err != nil {
		t.Fatal(err)
	}
	pods := p.pods(t, "spread", 4)
	if !slices.ContainsFunc(pods, func(pod core.Pod) bool { return pod.Spec.NodeName == "node2" }) {
		t.Error("no pod is on node2")
	}
	p.expectAllReachEachOther(t, pods)
}

// routes returns those of some prefixes to which a node has a route.
func routes(t *testing.T, n *testnet.Node, prefixes []netip.Prefix) (found []netip.Prefix) {
	t.Helper()
	v4, err4 := n.Exec(t.Context(), "ip", "-4", "route", "show", "table", "all")
	v6, err6 := n.Exec(t.Context(), "ip", "-6", "route", "show", "table", "all")
	if err := errors.Join(err4, err6); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range prefixes {
		if strings.Contains(v4+v6, prefix.String()+" ") {
			found = append(found, prefix)
		}
	}
	return found
}

// drain does what `kubectl drain` does.
func (p *podNetwork) drain(t *testing.T, node string) {
	t.Helper()
	patch := []byte(`{"spec":{"unschedulable":true}}`)
	if _, err := p.admin.CoreV1().Nodes().Patch(t.Context(), node, types.MergePatchType, patch, meta.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	err := waitALittle(t, "pods to leave "+node, func(ctx context.Context) error {
		list, err := p.admin.CoreV1().Pods("").List(ctx, meta.ListOptions{FieldSelector: "spec.nodeName=" + node})
		if err != nil {
			return err
		}
		left := 0
		for _, pod := range list.Items {
			if pod.Labels["app"] == "host" {
				continue // a DaemonSet's
			}
			left++
			eviction := &policy.Eviction{ObjectMeta: meta.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace}}
			if err := p.admin.CoreV1().Pods(pod.Namespace).EvictV1(ctx, eviction); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
		if left > 0 {
			return fmt.Errorf("%d are there", left)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (p *podNetwork) noLeaseOutlivesItsPod(t *testing.T) {
	for _, namespace := range []string{"spread", "web"} {
		if err := p.admin.CoreV1().Namespaces().Delete(t.Context(), namespace, meta.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range p.cluster.Nodes() {
		err := waitALittle(t, "the leases and veths of "+n.Entry().Name+" to go", func(ctx context.Context) error {
			out, err := n.Exec(ctx, filepath.Join(weftPrograms, "weft"), "ipam", "--state-dir", filepath.Join(n.Dir(), "state"), "list", "-o", "json")
			if err != nil {
				return err
			}
			var list struct{ Leases []any }
			if err := json.Unmarshal([]byte(out), &list); err != nil {
				return err
			}
			// weft-cni puts the host sides of its veths into this group.
			veths, err := n.Exec(ctx, "ip", "-o", "link", "show", "group", "93")
			if len(list.Leases) > 0 || veths != "" {
				return fmt.Errorf("there are\n%s\n%s", out, veths)
			}
			return err
		})
		if err != nil {
			t.Errorf("%v\n%s", err, n.LogTail(10))
		}
	}
}
