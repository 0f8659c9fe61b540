package testnet

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
)

// KubernetesPodCIDRs are what Kubernetes gives its nodes their pod CIDRs from, a /24 and a
// /64 each. Nodes get them in no certain order.
var KubernetesPodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/48")}

// KubernetesDNS is the address of a Service that pods are told to ask for names. Nothing is there
// until a test makes it.
var KubernetesDNS = netip.MustParseAddr("10.96.0.10")

// systemPlugins is where the distribution has its CNI plugins.
const systemPlugins = "/usr/lib/cni"

// Kubernetes is a whole one: an API server with the controllers and the scheduler beside
// it, and on each node of a Cluster containerd, kubelet and kube-proxy. It has no pod
// network until a weftd or the test writes a conflist. The nodes are the
// Cluster's, so weftd can be started on them.
type Kubernetes struct {
	*APIServer
	ControllerManager *Service
	Scheduler         *Service
	Cluster           *Cluster
	Nodes             []*KubernetesNode

	pluginDir string
	image     string // its archive
}

// NewKubernetes is AddKubernetes and StartAll.
func (n *Net) NewKubernetes(ctx context.Context, cluster *Cluster, o APIServerOptions) (*Kubernetes, error) {
	k, err := n.AddKubernetes(ctx, cluster, o)
	if err != nil {
		return nil, err
	}
	return k, k.StartAll(ctx)
}

// AddKubernetes prepares Kubernetes on the nodes of a cluster whose weftds were not
// started. It returns when the API server is ready, and nothing else runs.
func (n *Net) AddKubernetes(ctx context.Context, cluster *Cluster, o APIServerOptions) (*Kubernetes, error) {
	k := &Kubernetes{
		Cluster:   cluster,
		pluginDir: filepath.Join(n.Dir(), "plugins"),
		image:     filepath.Join(n.Dir(), "image.tar"),
	}
	if err := n.linkPlugins(k.pluginDir); err != nil {
		return nil, fmt.Errorf("find the CNI plugins (make deps installs them): %w", err)
	}
	if err := WriteImage(k.image); err != nil {
		return nil, fmt.Errorf("make the image: %w", err)
	}
	var err error
	if k.APIServer, err = n.AddAPIServer(ctx, cluster.Segment, o); err != nil {
		return nil, err
	}
	if err := k.addControllers(); err != nil {
		return nil, fmt.Errorf("add the controllers: %w", err)
	}
	for _, node := range cluster.Nodes() {
		if err := k.addNode(ctx, node); err != nil {
			return nil, fmt.Errorf("add %s to Kubernetes: %w", node.options.Name, err)
		}
	}
	return k, nil
}

// StartAll starts everything but the API server, and returns when all is ready; the nodes
// register themselves a moment later.
func (k *Kubernetes) StartAll(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return k.ControllerManager.Start(ctx) })
	group.Go(func() error { return k.Scheduler.Start(ctx) })
	for _, node := range k.Nodes {
		group.Go(func() error { return node.startAll(ctx, k.image) })
	}
	return group.Wait()
}

// AddNode adds the next node to the cluster and to Kubernetes.
func (k *Kubernetes) AddNode(ctx context.Context) (*KubernetesNode, error) {
	node, err := k.Cluster.AddNode(ctx)
	if err != nil {
		return nil, err
	}
	if err := k.addNode(ctx, node); err != nil {
		return nil, fmt.Errorf("add %s to Kubernetes: %w", node.options.Name, err)
	}
	added := k.Nodes[len(k.Nodes)-1]
	return added, added.startAll(ctx, k.image)
}

// linkPlugins puts weft's plugin and the distribution's into one folder, as they are on a
// node.
func (n *Net) linkPlugins(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	plugins, err := filepath.Glob(filepath.Join(systemPlugins, "*"))
	if err != nil {
		return err
	}
	for _, plugin := range append(plugins, filepath.Join(n.options.BinDir, "weft-cni")) {
		if _, err := os.Stat(plugin); err != nil {
			return err
		}
		if err := os.Symlink(plugin, filepath.Join(dir, filepath.Base(plugin))); err != nil {
			return err
		}
	}
	return nil
}

// PluginDir holds weft's CNI plugin and the distribution's. It is where containerd looks.
func (k *Kubernetes) PluginDir() string { return k.pluginDir }

func (k *Kubernetes) addControllers() error {
	cert, key := k.ca.files(controlPlaneCert)
	managerConfig, err := k.Kubeconfig("system:kube-controller-manager")
	if err != nil {
		return err
	}
	schedulerConfig, err := k.Kubeconfig("system:kube-scheduler")
	if err != nil {
		return err
	}
	k.ControllerManager = k.addController("kube-controller-manager", 10257,
		"--kubeconfig="+managerConfig,
		"--tls-cert-file="+cert, "--tls-private-key-file="+key,
		"--allocate-node-cidrs=true",
		"--cluster-cidr="+Join(KubernetesPodCIDRs, ","),
		"--node-cidr-mask-size-ipv4=24", "--node-cidr-mask-size-ipv6=64",
		"--service-cluster-ip-range="+Join(serviceCIDRs, ","),
		"--use-service-account-credentials=true",
		"--service-account-private-key-file="+k.tokenKeyFile(),
		"--root-ca-file="+k.CAFile(),
		// Otherwise a folder in /usr, which it makes.
		"--flex-volume-plugin-dir="+filepath.Join(k.dir, "volume-plugins"))
	k.Scheduler = k.addController("kube-scheduler", 10259,
		"--kubeconfig="+schedulerConfig,
		"--tls-cert-file="+cert, "--tls-private-key-file="+key)
	return nil
}

// addController adds a program that reports its health by HTTPS on a port of the loopback.
func (k *Kubernetes) addController(program string, port int, arguments ...string) *Service {
	arguments = append(arguments, "--leader-elect=false", "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port))
	return k.newService(program, arguments, func(ctx context.Context) error {
		_, err := k.getTLS(ctx, k.ca.roots(), fmt.Sprintf("https://127.0.0.1:%d", port), "/healthz")
		return err
	})
}
