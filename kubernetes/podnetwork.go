package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft/internal/testnet"
)

// vethGroup is that of the host sides of the veths that weft-cni makes.
const vethGroup = "93"

// PodNetwork is a whole Kubernetes whose only network is weft.
type PodNetwork struct {
	*Weft

	// Kubernetes is set by the caller, which starts it on the Cluster. The weftds are for later,
	// when it has admitted their nodes.
	Kubernetes *testnet.Kubernetes
}

// NewPodNetwork makes a cluster in which nothing runs yet. The option Configure is called
// last.
func NewPodNetwork(ctx context.Context, n *testnet.Net, o testnet.ClusterOptions) (*PodNetwork, error) {
	p := &PodNetwork{}
	configure := o.Configure
	o.Configure = func(weft map[string]any) {
		if p.Kubernetes != nil {
			cni := weft["cni"].(map[string]any)
			cni["binDir"], cni["chain"] = p.Kubernetes.PluginDir(), []string{"portmap"}
		}
		if configure != nil {
			configure(weft)
		}
	}
	var err error
	p.Weft, err = NewWeft(ctx, n, o)
	return p, err
}

// AwaitAdmitted waits until Kubernetes has given the node its pod CIDRs, and gives it its
// token. The Node that it returns is as it was then.
func (p *PodNetwork) AwaitAdmitted(ctx context.Context, n *testnet.Node) (*core.Node, error) {
	node, err := p.Admin.WaitNode(ctx, n.Entry().Name, func(node *core.Node) error {
		if len(node.Spec.PodCIDRs) != 2 {
			return fmt.Errorf("its pod CIDRs are %v", node.Spec.PodCIDRs)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return node, p.GiveToken(ctx, n.Entry().Name)
}

// Pods returns the pods of an app in a namespace as soon as so many are ready, and no
// others are there but those that are being deleted.
func (p *PodNetwork) Pods(ctx context.Context, namespace, app string, want int) (pods []core.Pod, err error) {
	err = waitALittle(ctx, "the pods of "+app, func(ctx context.Context) error {
		list, err := p.Admin.CoreV1().Pods(namespace).List(ctx, meta.ListOptions{LabelSelector: "app=" + app})
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
	return pods, err
}

// Command returns what prepares a program to run in a pod's network, with the files of its
// node. It needs no API server.
func (p *PodNetwork) Command(ctx context.Context, pod *core.Pod) (func(ctx context.Context, name string, args ...string) *exec.Cmd, error) {
	i := slices.IndexFunc(p.Kubernetes.Nodes, func(n *testnet.KubernetesNode) bool { return n.NodeName() == pod.Spec.NodeName })
	if i < 0 || len(pod.Status.ContainerStatuses) == 0 {
		return nil, fmt.Errorf("%s runs nowhere", pod.Name)
	}
	n := p.Kubernetes.Nodes[i]
	_, id, _ := strings.Cut(pod.Status.ContainerStatuses[0].ContainerID, "://")
	out, err := n.Inside(ctx, "ctr", "--namespace", "k8s.io", "tasks", "list").Output()
	if err != nil {
		return nil, fmt.Errorf("find the container of %s: %w", pod.Name, err)
	}
	for line := range strings.Lines(string(out)) {
		if words := strings.Fields(line); len(words) > 1 && words[0] == id {
			return func(ctx context.Context, name string, args ...string) *exec.Cmd {
				return n.Inside(ctx, "nsenter", append([]string{"--net=/proc/" + words[1] + "/ns/net", "--", name}, args...)...)
			}, nil
		}
	}
	return nil, fmt.Errorf("the container of %s is not found", pod.Name)
}

// Snapshot waits until a weftd has noted all nodes where it finds them without an API
// server.
func (p *PodNetwork) Snapshot(ctx context.Context, n *testnet.Node) error {
	return waitALittle(ctx, "the snapshot", func(context.Context) error {
		content, err := os.ReadFile(filepath.Join(n.Dir(), "state", "nodes.snapshot"))
		if err != nil {
			return err
		}
		for _, other := range p.Cluster.Nodes() {
			if !strings.Contains(string(content), other.Entry().Name) {
				return fmt.Errorf("it doesn't hold %s", other.Entry().Name)
			}
		}
		return nil
	})
}

// Drain does what `kubectl drain --ignore-daemonsets` does.
func (p *PodNetwork) Drain(ctx context.Context, node string) error {
	patch := []byte(`{"spec":{"unschedulable":true}}`)
	if _, err := p.Admin.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, meta.PatchOptions{}); err != nil {
		return err
	}
	return waitALittle(ctx, "pods to leave "+node, func(ctx context.Context) error {
		list, err := p.Admin.CoreV1().Pods("").List(ctx, meta.ListOptions{FieldSelector: "spec.nodeName=" + node})
		if err != nil {
			return err
		}
		left := slices.DeleteFunc(list.Items, func(pod core.Pod) bool {
			owner := meta.GetControllerOf(&pod)
			return owner != nil && owner.Kind == "DaemonSet"
		})
		for _, pod := range left {
			eviction := &policy.Eviction{ObjectMeta: meta.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace}}
			if err := p.Admin.CoreV1().Pods(pod.Namespace).EvictV1(ctx, eviction); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("%d are there", len(left))
		}
		return nil
	})
}

// Routes returns those of some prefixes to which a node has a route.
func Routes(ctx context.Context, n *testnet.Node, prefixes []netip.Prefix) (found []netip.Prefix, err error) {
	v4, err4 := n.Exec(ctx, "ip", "-4", "route", "show", "table", "all")
	v6, err6 := n.Exec(ctx, "ip", "-6", "route", "show", "table", "all")
	for _, prefix := range prefixes {
		if strings.Contains(v4+v6, prefix.String()+" ") {
			found = append(found, prefix)
		}
	}
	return found, errors.Join(err4, err6)
}

// AwaitNoRoutes waits until a node has a route to none of the prefixes.
func AwaitNoRoutes(ctx context.Context, n *testnet.Node, prefixes []netip.Prefix) error {
	return waitALittle(ctx, "the routes to go", func(ctx context.Context) error {
		found, err := Routes(ctx, n, prefixes)
		if len(found) > 0 {
			return fmt.Errorf("there are routes to %v", found)
		}
		return err
	})
}

// Held returns what weft holds for the pods of a node: the number of their leases, and their
// veths as ip shows them. weft is the operator's command.
func Held(ctx context.Context, n *testnet.Node, weft string) (leases int, veths string, err error) {
	out, err := n.Exec(ctx, weft, "ipam", "--state-dir", filepath.Join(n.Dir(), "state"), "list", "-o", "json")
	if err != nil {
		return 0, "", err
	}
	var list struct{ Leases []any }
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return 0, "", fmt.Errorf("read the leases of %s: %w", n.Entry().Name, err)
	}
	veths, err = n.Exec(ctx, "ip", "-o", "link", "show", "group", vethGroup)
	return len(list.Leases), veths, err
}

// AwaitNothingHeld waits until weft holds neither a lease nor a veth on a node.
func AwaitNothingHeld(ctx context.Context, n *testnet.Node, weft string) error {
	return waitALittle(ctx, "the leases and veths of "+n.Entry().Name+" to go", func(ctx context.Context) error {
		leases, veths, err := Held(ctx, n, weft)
		if err == nil && (leases > 0 || veths != "") {
			err = fmt.Errorf("there are %d leases, and the veths\n%s", leases, veths)
		}
		return err
	})
}
