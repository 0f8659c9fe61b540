package kubernetes

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	audit "k8s.io/apiserver/pkg/apis/audit/v1"

	"weft/internal/testnet"
)

// shipped are what make has written.
var shipped = Files{Image: "../bin/image/weft.tar", Manifests: "../bin/manifests", Programs: weftPrograms}

// installed is an Installed whose methods fail the test.
type installed struct {
	*Installed
	before map[string]string // what was on the nodes before weft
}

func newInstalled(t *testing.T) *installed {
	t.Helper()
	for _, path := range []string{shipped.Image, shipped.Manifests + "/weft.yaml"} {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("run this by `make test-kubernetes`: %v", err)
		}
	}
	in, err := NewInstalled(t.Context(), newNet(t), 2, kubernetesPrograms, shipped)
	check(t, err)
	return &installed{in, nil}
}

func (in *installed) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := in.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, in.Describe(t.Context()))
	}
	return out
}

func TestWeftIsInstalledByItsManifest(t *testing.T) {
	in := newInstalled(t)
	for _, subtest := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"the API server takes every manifest", in.manifestsAreValid},
		{"one command makes nodes ready, and pods talk", in.apply},
		{"an update loses nothing", in.update},
		{"a bad update stops at its first node", in.badUpdate},
		{"pods outlive what may go wrong", in.chaos},
		{"weft has no right that it does not use", in.rightsAreUsed},
		{"nodes are as before", in.uninstall},
	} {
		if !t.Run(subtest.name, subtest.run) {
			return // the next ones need what it has left
		}
	}
}

func (in *installed) manifestsAreValid(t *testing.T) {
	in.before = in.footprints(t)
	in.kubectl(t, "create", "namespace", weftNamespace) // a dry run makes none, and what is in it is refused
	entries, err := os.ReadDir(in.files.Manifests)
	check(t, err)
	if len(entries) < 2 {
		t.Errorf("there are %d manifests", len(entries))
	}
	for _, e := range entries {
		in.kubectl(t, "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "--filename", in.Manifest(e.Name()))
	}
	in.kubectl(t, "delete", "namespace", weftNamespace)
}

// apply runs the commands of the README, on this cluster's manifest.
func (in *installed) apply(t *testing.T) {
	manifest, err := in.OwnManifest(filepath.Join(in.Cluster.Nodes()[0].Dir(), "manifest.yaml"))
	check(t, err)
	here := strings.NewReplacer("bin/manifests/weft.yaml", manifest, "bin/image/weft.tar", in.files.Image)
	started := time.Now()
	for _, command := range quickStart(t) {
		words := strings.Fields(here.Replace(command))
		switch words[0] {
		case "make": // as make test-kubernetes has done
			if command != "make image manifests" {
				t.Errorf("the README says %q", command)
			}
		case "ctr":
			for _, n := range in.Kubernetes.Nodes {
				if out, err := n.Inside(t.Context(), words[0], words[1:]...).CombinedOutput(); err != nil {
					t.Fatalf("%s: %v: %s", command, err, out)
				}
			}
			started = time.Now()
		case "kubectl":
			t.Logf("%s\n%s", command, in.kubectl(t, words[1:]...))
		default:
			t.Errorf("the README says %q", command)
		}
	}
	check(t, in.AwaitReady(t.Context()))
	t.Logf("the nodes are ready %v after kubectl apply", time.Since(started).Round(time.Millisecond))
	expectPodsAndService(t, in.Admin)
	t.Logf("pods talk %v after kubectl apply", time.Since(started).Round(time.Millisecond))
}

// quickStart returns the commands of the README's section about Kubernetes, without comments.
func quickStart(t *testing.T) (commands []string) {
	t.Helper()
	readme, err := os.ReadFile("../README.md")
	check(t, err)
	block := regexp.MustCompile("(?s)\n## Quick start in Kubernetes\n.*?```sh\n(.*?)```").FindSubmatch(readme)
	if block == nil {
		t.Fatal("the README has no such section")
	}
	for line := range strings.Lines(string(block[1])) {
		command, _, _ := strings.Cut(line, "#")
		if command = strings.TrimSpace(command); command != "" {
			commands = append(commands, command)
		}
	}
	return commands
}

// pings sends a ping each 10 ms from one pod to another, over both families, until stop is called. It
// starts the program anew every 2 s, as only that tells what was lost.
func (in *installed) pings(t *testing.T, from, to *core.Pod) (stop func() (sent, lost int)) {
	t.Helper()
	command, err := in.Command(t.Context(), from)
	check(t, err)
	stopped, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	var mu sync.Mutex
	var sent, received int
	for _, ip := range to.Status.PodIPs {
		group.Go(func() {
			for stopped.Err() == nil {
				out, err := command(t.Context(), "ping", "-n", "-q", "-i", "0.01", "-c", "200", "-W", "5", ip.IP).CombinedOutput()
				counts := regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`).FindStringSubmatch(string(out))
				if counts == nil {
					t.Errorf("ping %s: %v: %s", ip.IP, err, out)
					return
				}
				s, _ := strconv.Atoi(counts[1])
				r, _ := strconv.Atoi(counts[2])
				mu.Lock()
				sent, received = sent+s, received+r
				mu.Unlock()
			}
		})
	}
	return func() (int, int) {
		cancel()
		group.Wait()
		return sent, sent - received
	}
}

func (in *installed) webPods(t *testing.T) (web1, web2 *core.Pod) {
	t.Helper()
	var pods []*core.Pod
	for _, name := range []string{"web1", "web2"} {
		pod, err := in.Admin.WaitPod(t.Context(), "web", name, PodReady)
		check(t, err)
		pods = append(pods, pod)
	}
	return pods[0], pods[1]
}

func (in *installed) update(t *testing.T) {
	web1, web2 := in.webPods(t)
	image := in.image(t)
	next := image + "-next"
	for _, n := range in.Kubernetes.Nodes {
		if out, err := n.Inside(t.Context(), "ctr", "--namespace", "k8s.io", "images", "tag", image, next).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	stop := in.pings(t, web1, web2)
	for _, command := range [][]string{
		{"set", "image", "daemonset/weft", "*=" + next},
		{"rollout", "undo", "daemonset/weft"},
		{"rollout", "restart", "daemonset/weft"},
	} {
		in.kubectl(t, append([]string{"--namespace", weftNamespace}, command...)...)
		in.kubectl(t, "--namespace", weftNamespace, "rollout", "status", "daemonset/weft", "--timeout=3m")
	}
	sent, lost := stop()
	t.Logf("3 updates of both nodes: %d of %d pings lost", lost, sent)
	if lost > 0 {
		t.Errorf("%d of %d pings were lost\n%s", lost, sent, in.Describe(t.Context()))
		for _, n := range in.Kubernetes.Nodes {
			out, err := in.Weft(t.Context(), n, "status").CombinedOutput()
			t.Logf("%s: %v\n%s", n.NodeName(), err, out)
		}
	}
	for _, n := range in.Kubernetes.Nodes {
		err := waitALittle(t.Context(), "one pod of weft's on "+n.NodeName(), func(ctx context.Context) error {
			pods, err := in.WeftPods(ctx, n)
			if err == nil && len(pods) != 1 {
				err = fmt.Errorf("there are %d", len(pods))
			}
			return err
		})
		check(t, err)
	}
}

// image returns the image that the manifest names.
func (in *installed) image(t *testing.T) string {
	t.Helper()
	set, err := in.Admin.AppsV1().DaemonSets(weftNamespace).Get(t.Context(), "weft", meta.GetOptions{})
	check(t, err)
	return set.Spec.Template.Spec.Containers[0].Image
}

// chaos: pods go on talking, and new ones start.
func (in *installed) chaos(t *testing.T) {
	web1, web2 := in.webPods(t)
	node1 := in.Kubernetes.Nodes[0]
	for _, fault := range []struct {
		name string
		do   func(*testing.T)
	}{
		{"weftd is killed", func(t *testing.T) { in.killWeftd(t, node1) }},
		{"kubelet is restarted", func(t *testing.T) { check(t, node1.Kubelet.Restart(t.Context())) }},
		{"containerd is restarted", func(t *testing.T) { check(t, node1.Containerd.Restart(t.Context())) }},
		{"the API server is away", func(t *testing.T) { in.withoutAPIServer(t, web1, web2) }},
		{"a Node is deleted, and comes back", in.deleteNode},
		{"a node is installed anew", in.loseKey},
	} {
		t.Run(fault.name, func(t *testing.T) {
			fault.do(t)
			in.expectNewPods(t)
		})
	}
}

func (in *installed) killWeftd(t *testing.T, n *testnet.KubernetesNode) {
	if out, err := n.Inside(t.Context(), "pkill", "-KILL", "-x", "weftd").CombinedOutput(); err != nil {
		t.Fatalf("pkill: %v: %s", err, out)
	}
}

// withoutAPIServer: also weftd starts meanwhile.
func (in *installed) withoutAPIServer(t *testing.T, web1, web2 *core.Pod) {
	command, err := in.Command(t.Context(), web1)
	check(t, err)
	in.Server.Kill()
	in.killWeftd(t, in.Kubernetes.Nodes[0])
	away := time.NewTimer(time.Duration(testnet.Sampled(10, 60)) * time.Second)
	for {
		err := waitALittle(t.Context(), "a ping without an API server", func(ctx context.Context) error {
			return command(ctx, "ping", "-c", "1", "-W", "1", web2.Status.PodIP).Run()
		})
		check(t, err)
		select {
		case <-away.C:
			check(t, in.Server.Start(t.Context()))
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// deleteNode has Kubernetes forget a node and all its pods; kubelet makes the Node again when it starts.
func (in *installed) deleteNode(t *testing.T) {
	node2 := in.Kubernetes.Nodes[1]
	check(t, node2.Kubelet.Stop(t.Context()))
	in.kubectl(t, "delete", "node", node2.NodeName())
	check(t, waitALittle(t.Context(), "its pods to be forgotten", func(ctx context.Context) error {
		list, err := in.Admin.CoreV1().Pods("").List(ctx, meta.ListOptions{FieldSelector: "spec.nodeName=" + node2.NodeName()})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("there are %d", len(list.Items))
		}
		return err
	}))
	check(t, node2.Kubelet.Start(t.Context()))
	check(t, in.AwaitReady(t.Context()))
	if err := in.Admin.Apply(t.Context(), "testdata/web"); err != nil {
		t.Fatal(err)
	}
	in.webPods(t)
}

// loseKey: a node that has another key than its Node says waits for an administrator.
func (in *installed) loseKey(t *testing.T) {
	node2 := in.Kubernetes.Nodes[1]
	check(t, os.Remove(node2.Path("var/lib/weft/node.key")))
	in.kubectl(t, "--namespace", weftNamespace, "delete", "pod", "--field-selector", "spec.nodeName="+node2.NodeName())
	const remedy = "kubectl annotate node node2 weft.network/key-"
	check(t, waitALittle(t.Context(), "weftd to name the remedy", func(ctx context.Context) error {
		report, err := in.Status(ctx, node2)
		if err == nil && (report.Ready || !strings.Contains(report.Summary, remedy)) {
			err = errors.New(report.Summary)
		}
		return err
	}))
	in.kubectl(t, strings.Fields(remedy)[1:]...)
	check(t, waitALittle(t.Context(), "weftd to be ready", func(ctx context.Context) error {
		report, err := in.Status(ctx, node2)
		if err == nil && !report.Ready {
			err = errors.New(report.Summary)
		}
		return err
	}))
}

// expectNewPods fails unless new pods on both nodes start and reach each other, and when they are gone no
// address of theirs is held.
func (in *installed) expectNewPods(t *testing.T) {
	t.Helper()
	if err := in.Admin.Apply(t.Context(), "testdata/spread/1-namespace.yaml"); err != nil {
		t.Fatal(err)
	}
	if err := in.Admin.Apply(t.Context(), "testdata/spread/2-deployment.yaml"); err != nil {
		t.Fatal(err)
	}
	pods, err := in.Pods(t.Context(), "spread", "spread", 4)
	if err != nil {
		t.Fatalf("%v\n%s", err, in.Describe(t.Context()))
	}
	p := &podNetwork{in.PodNetwork}
	p.expectAllReachEachOther(t, pods)
	in.kubectl(t, "delete", "namespace", "spread")
	for _, n := range in.Kubernetes.Nodes {
		err := waitALittle(t.Context(), "the leases of "+n.NodeName()+" to be those of its pods", func(ctx context.Context) error {
			out, err := in.Weft(ctx, n, "ipam", "--state-dir", "/var/lib/weft", "list", "-o", "json").Output()
			if err != nil {
				return err
			}
			var list struct{ Leases []any }
			if err := json.Unmarshal(out, &list); err != nil {
				return err
			}
			if len(list.Leases) != 1 { // of web1 or web2
				return fmt.Errorf("there are %d leases:\n%s", len(list.Leases), out)
			}
			return nil
		})
		check(t, err)
	}
}

// rightsAreUsed compares what weftds have asked for with what their role allows. For events, which are
// seldom, see TestNodesRegisterInKubernetesAndSeeEachOther.
func (in *installed) rightsAreUsed(t *testing.T) {
	used := map[string]bool{}
	log, err := os.Open(in.Server.AuditLog())
	check(t, err)
	defer log.Close()
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var event audit.Event
		check(t, json.Unmarshal(lines.Bytes(), &event))
		if event.ObjectRef != nil && event.ObjectRef.Resource != "events" {
			used[right(event.ObjectRef.APIGroup, event.ObjectRef.Resource, event.ObjectRef.Subresource, event.Verb)] = true
		}
	}
	check(t, lines.Err())
	allowed := map[string]bool{}
	role, err := in.Admin.RbacV1().ClusterRoles().Get(t.Context(), "weft", meta.GetOptions{})
	check(t, err)
	for _, rule := range role.Rules {
		for _, name := range rightsOf(rule) {
			allowed[name] = true
		}
	}
	if !maps.Equal(used, allowed) {
		t.Errorf("weft may %v, and uses %v", slices.Sorted(maps.Keys(allowed)), slices.Sorted(maps.Keys(used)))
	}
}

func rightsOf(rule rbac.PolicyRule) (all []string) {
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			name, sub, _ := strings.Cut(resource, "/")
			for _, verb := range rule.Verbs {
				all = append(all, right(group, name, sub, verb))
			}
		}
	}
	return all
}

func right(group, resource, subresource, verb string) string {
	return fmt.Sprintf("%s %s/%s of %q", verb, resource, subresource, group)
}

func (in *installed) uninstall(t *testing.T) {
	in.kubectl(t, "apply", "--filename", in.Manifest("weft-uninstall.yaml"))
	err := waitALittle(t.Context(), "the pods to wait for the end of weft's", func(ctx context.Context) error {
		pods, err := in.Admin.CoreV1().Pods(weftNamespace).List(ctx, meta.ListOptions{LabelSelector: "app.kubernetes.io/name=weft-uninstall"})
		unschedulable := 0
		for _, pod := range pods.Items {
			for _, c := range pod.Status.Conditions {
				if c.Type == core.PodScheduled && c.Reason == core.PodReasonUnschedulable {
					unschedulable++
				}
			}
		}
		if err == nil && unschedulable != len(in.Kubernetes.Nodes) {
			err = fmt.Errorf("%d wait", unschedulable)
		}
		return err
	})
	check(t, err)
	in.kubectl(t, "--namespace", weftNamespace, "delete", "daemonset", "weft")
	// Pods run still, so nothing may be removed.
	err = waitALittle(t.Context(), "the logs to name the pods", func(ctx context.Context) error {
		out, err := in.Kubectl(ctx, "--namespace", weftNamespace, "logs", "--selector", "app.kubernetes.io/name=weft-uninstall", "--container", "teardown")
		if err == nil && strings.Count(out, "1 pod still on this node") != len(in.Kubernetes.Nodes) {
			err = errors.New(out)
		}
		return err
	})
	check(t, err)
	in.kubectl(t, "delete", "namespace", "web")
	in.kubectl(t, "--namespace", weftNamespace, "rollout", "status", "daemonset/weft-uninstall", "--timeout=3m")
	in.kubectl(t, "delete", "--filename", in.Manifest("weft-uninstall.yaml"))
	in.kubectl(t, "delete", "--ignore-not-found", "--filename", in.Manifest("weft.yaml"))
	after := in.footprints(t)
	for node, want := range in.before {
		if after[node] != want {
			t.Errorf("%s was\n%s\nand is\n%s", node, want, after[node])
		}
	}
}

// footprints returns what weft might have left on the nodes. Forwarding stays on, with which the kernel has
// anycast routes. The plugins that weft has brought stay too: others may use them by now.
func (in *installed) footprints(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, n := range in.Kubernetes.Nodes {
		out, err := n.Inside(t.Context(), "sh", "-c", `
			ip -br link; ip -4 route show table all; ip -6 route show table all | grep -v '^multicast\|^anycast\|fe80'; ip rule; ip -6 rule
			nft list tables | grep -v kube-proxy
			cd / && find etc/cni opt/cni var/lib/weft run/weft ! -name weft ! -name loopback ! -name portmap ! -name bandwidth ! -name tuning -print 2>/dev/null | sort; true`).Output()
		check(t, err)
		all[n.NodeName()] = string(out)
	}
	return all
}
