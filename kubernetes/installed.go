package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"weft/internal/status"
	"weft/internal/testnet"
)

// Files are what make writes for users of Kubernetes.
type Files struct {
	Image     string // an archive
	Manifests string // a folder
	Programs  string // a folder: weft, as an administrator has it on a node
}

// Installed is a whole Kubernetes in which weft is installed as users do it. No file of weft's is on a
// node before.
type Installed struct {
	*PodNetwork
	files Files
}

// NewInstalled starts a Kubernetes with no pod network, whose control plane is on the first node. The
// paths are those that make writes to.
func NewInstalled(ctx context.Context, n *testnet.Net, nodes int, binDir string, files Files) (*Installed, error) {
	for _, path := range []*string{&files.Image, &files.Manifests, &files.Programs} {
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return nil, err
		}
	}
	in := &Installed{PodNetwork: &PodNetwork{Weft: &Weft{}}, files: files}
	var err error
	if in.Cluster, err = n.NewCluster(ctx, testnet.ClusterOptions{Nodes: nodes}); err != nil {
		return nil, err
	}
	control := testnet.APIServerOptions{
		BinDir: binDir, On: in.Cluster.Nodes()[0],
		Audited: []string{"system:serviceaccount:" + weftNamespace + ":" + weftAccount},
	}
	if in.Kubernetes, err = n.AddKubernetes(ctx, in.Cluster, control); err != nil {
		return nil, err
	}
	in.Server = in.Kubernetes.APIServer
	if in.Admin, err = Admin(in.Server); err != nil {
		return nil, err
	}
	if err := in.preparePlugins(); err != nil {
		return nil, fmt.Errorf("prepare the CNI plugins: %w", err)
	}
	return in, in.Kubernetes.StartAll(ctx)
}

// preparePlugins takes away what weft installs, and brings where it is missing.
func (in *Installed) preparePlugins() error {
	var errs []error
	for _, name := range []string{"weft-cni", "loopback", "portmap", "bandwidth", "tuning"} {
		errs = append(errs, os.Remove(filepath.Join(in.Kubernetes.PluginDir(), name)))
	}
	return errors.Join(errs...)
}

// Manifest returns the path of one of weft's manifests.
func (in *Installed) Manifest(name string) string { return filepath.Join(in.files.Manifests, name) }

// Kubectl runs kubectl as an administrator, and returns what it prints.
func (in *Installed) Kubectl(ctx context.Context, args ...string) (string, error) {
	kubeconfig, err := in.Server.AdminKubeconfig()
	if err != nil {
		return "", err
	}
	program := filepath.Join(in.Server.BinDir(), "kubectl")
	cache := filepath.Join(in.Cluster.Nodes()[0].Dir(), "kubectl")
	out, err := in.Server.Command(ctx, program, append([]string{"--kubeconfig", kubeconfig, "--cache-dir", cache}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// Weft prepares the operator's command on a node.
func (in *Installed) Weft(ctx context.Context, n *testnet.KubernetesNode, args ...string) *exec.Cmd {
	return n.Inside(ctx, filepath.Join(in.files.Programs, "weft"), args...)
}

// Status returns a node's weftd's.
func (in *Installed) Status(ctx context.Context, n *testnet.KubernetesNode) (status.Report, error) {
	return status.Fetch(ctx, n.Path("run/weft/"+status.SocketName))
}

// OwnManifest writes weft.yaml with this cluster's ranges for pods, and returns its path.
func (in *Installed) OwnManifest(path string) (string, error) {
	const written = "clusterCIDRs: [10.244.0.0/16]"
	manifest, err := os.ReadFile(in.Manifest("weft.yaml"))
	if err != nil {
		return "", err
	}
	if !strings.Contains(string(manifest), written) {
		return "", fmt.Errorf("%s has no %q", in.Manifest("weft.yaml"), written)
	}
	own := fmt.Sprintf("clusterCIDRs: [%q, %q]", testnet.KubernetesPodCIDRs[0], testnet.KubernetesPodCIDRs[1])
	return path, os.WriteFile(path, []byte(strings.Replace(string(manifest), written, own, 1)), 0o644)
}

// AwaitReady waits until all nodes are ready.
func (in *Installed) AwaitReady(ctx context.Context) error {
	for _, n := range in.Kubernetes.Nodes {
		if _, err := in.Admin.WaitNode(ctx, n.NodeName(), NodeReady); err != nil {
			return fmt.Errorf("%w\n%s", err, in.Describe(ctx))
		}
	}
	return nil
}

// Describe is what an administrator would look at if weft's pods don't get ready.
func (in *Installed) Describe(ctx context.Context) string {
	var text strings.Builder
	for _, what := range []string{"pods", "events"} {
		out, err := in.Kubectl(ctx, "--namespace", weftNamespace, "get", what, "--output", "wide")
		fmt.Fprintf(&text, "%s%v\n", out, err)
	}
	pods, err := in.Admin.CoreV1().Pods(weftNamespace).List(ctx, meta.ListOptions{})
	if err != nil {
		return text.String() + err.Error()
	}
	for _, pod := range pods.Items {
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			out, err := in.Logs(ctx, &pod, c.Name)
			fmt.Fprintf(&text, "--- %s of %s on %s: %v\n%s", c.Name, pod.Name, pod.Spec.NodeName, err, out)
		}
	}
	return text.String()
}

// Logs returns the last lines of a container's log.
func (in *Installed) Logs(ctx context.Context, pod *core.Pod, container string) (string, error) {
	const lines = 20
	out, err := in.Admin.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &core.PodLogOptions{Container: container, TailLines: ptr.To[int64](lines)}).DoRaw(ctx)
	return string(out), err
}

// WeftPods returns weft's pods on a node that are not being deleted.
func (in *Installed) WeftPods(ctx context.Context, n *testnet.KubernetesNode) (pods []core.Pod, err error) {
	all, err := in.Admin.CoreV1().Pods(weftNamespace).List(ctx, meta.ListOptions{FieldSelector: "spec.nodeName=" + n.NodeName()})
	if err != nil {
		return nil, err
	}
	for _, pod := range all.Items {
		if pod.DeletionTimestamp == nil {
			pods = append(pods, pod)
		}
	}
	return pods, nil
}
