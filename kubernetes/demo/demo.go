package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	core "k8s.io/api/core/v1"

	"weft/internal/stage"
	"weft/internal/testnet"
	"weft/kubernetes"
)

// The namespaces of kubernetes/testdata, and how many pods of the Deployment there are.
const (
	spread   = "spread"
	web      = "web"
	replicas = 4
)

// demo is the state that the steps hand on.
type demo struct {
	*stage.Demo
	*kubernetes.PodNetwork

	// root is the folder of weft's sources.
	root string

	// pods are the Deployment's, and hosts those in the nodes' own network, in the order in
	// which tables show them.
	pods, hosts []*webPod
}

func (d *demo) steps() []stage.Step {
	steps := []stage.Step{
		{Title: "The topology", Show: d.drawTopology},
		{Title: "Bring it up", Show: d.bringUp},
		{Title: "A Deployment on both nodes: reachability", Show: d.showReachability},
		{Title: "A Service, a host port", Show: d.showServices},
		{Title: "What can be read on the underlay", Show: d.showUnderlay},
		{Title: "What a node's token may change", Show: d.showRights},
		{Title: "The API server is unreachable, and weftd restarts", Show: d.killAPIServer},
		{Title: "A Node is deleted, and comes back", Show: d.deleteNode},
		{Title: "What Kubernetes and weft report", Show: d.inspect},
	}
	if d.Keep {
		return steps // its pods stay for the user to explore
	}
	return append(steps, stage.Step{Title: "All pods are deleted", Show: d.deletePods})
}

func (d *demo) hints() [][2]string {
	hints := [][2]string{{"ls " + d.Net.Dir(), "all files and logs"}}
	if d.PodNetwork == nil || d.Server == nil {
		return hints
	}
	node := d.Node(1)
	return append(hints,
		[2]string{"export KUBECONFIG=" + filepath.Join(d.Net.Dir(), "apiserver", "admin.kubeconfig"), "for kubectl"},
		[2]string{"ip netns exec " + d.Server.Name() + " " + d.kubernetesProgram("kubectl") + " get pods -A", "whatever kubectl can"},
		[2]string{"ip netns exec " + node.Name() + " " + filepath.Join(d.Bin, "weft") + " --socket " + node.Socket() + " status", "a daemon's state; as well: peers, explain, events, …"},
		[2]string{"ip netns exec " + node.Name() + " ip route", "a node's routes"})
}

func (d *demo) kubernetesProgram(name string) string {
	return filepath.Join(d.Bin, "kubernetes", name)
}

// kubectl prints what kubectl, asked by an administrator, says.
func (d *demo) kubectl(ctx context.Context, args ...string) error {
	kubeconfig, err := d.Server.AdminKubeconfig()
	if err != nil {
		return err
	}
	program, err := filepath.Abs(d.kubernetesProgram("kubectl"))
	if err != nil {
		return err
	}
	// Its cache is the Net's, too.
	cache := filepath.Join(d.Net.Dir(), "kubectl")
	out, err := d.Server.Exec(ctx, program, append([]string{"--kubeconfig", kubeconfig, "--cache-dir", cache}, args...)...)
	if err != nil {
		return err
	}
	d.Line("%s", d.Paint(stage.Bold, "kubectl "+quote(args)))
	d.Block(trimLines(out))
	return nil
}

// quote writes arguments as a shell reads them.
func quote(args []string) string {
	var quoted []string
	for _, arg := range args {
		if strings.ContainsAny(arg, "*\\ ") {
			arg = "'" + arg + "'"
		}
		quoted = append(quoted, arg)
	}
	return strings.Join(quoted, " ")
}

// trimLines takes the spaces away with which kubectl fills the last column.
func trimLines(text string) string {
	var trimmed strings.Builder
	for line := range strings.Lines(text) {
		trimmed.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return trimmed.String()
}

// findPods fills in the pods and hosts. Pods have other names after each start; tables
// show them as a1 and b1 on node1, a2 and b2 on node2.
func (d *demo) findPods(ctx context.Context) error {
	pods, err := d.Pods(ctx, spread, spread, replicas)
	if err != nil {
		return err
	}
	hosts, err := d.Pods(ctx, spread, "host", len(d.Cluster.Nodes()))
	if err != nil {
		return err
	}
	d.pods, d.hosts = nil, nil
	for number, node := range d.Cluster.Nodes() {
		here := func(pod core.Pod) bool { return pod.Spec.NodeName == node.Entry().Name }
		letter := 'a'
		for _, pod := range slices.SortedFunc(filter(pods, here), byName) {
			d.pods = append(d.pods, d.podPlace(pod, node, fmt.Sprintf("%c%d", letter, number+1)))
			letter++
		}
		cidrs, err := d.PodCIDRs(ctx, node)
		if err != nil {
			return err
		}
		for pod := range filter(hosts, here) {
			d.hosts = append(d.hosts, d.hostPlace(pod, node, cidrs))
		}
	}
	return nil
}

// on returns the Deployment's pods that are on a node.
func (d *demo) on(n *testnet.Node) (there []*webPod) {
	return slices.Collect(filter(d.pods, func(s *webPod) bool { return s.Node == n }))
}
