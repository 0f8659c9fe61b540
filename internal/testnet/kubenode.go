package testnet

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
)

// KubernetesNode is a node of a Kubernetes, a Machine in which all its programs run.
type KubernetesNode struct {
	*Machine
	Kubelet *Service
	Proxy   *Service
}

// NodeName is the node's name in Kubernetes, and weft's name for it.
func (n *KubernetesNode) NodeName() string { return n.options.Name }

func (k *Kubernetes) addNode(ctx context.Context, node *Node) error {
	machine, err := node.NewMachine(ctx, k.pluginDir)
	if err != nil {
		return err
	}
	n := &KubernetesNode{Machine: machine}
	addrs, err := n.Addrs(UnderlayLink)
	if err != nil {
		return err
	}
	if err := errors.Join(k.addKubelet(n, addrs), k.addProxy(n)); err != nil {
		return err
	}
	k.Nodes = append(k.Nodes, n)
	return nil
}

func (n *KubernetesNode) startAll(ctx context.Context, image string) error {
	// kubelet wants to find it.
	if err := makeCgroups(n.name); err != nil {
		return err
	}
	if err := n.Containerd.Start(ctx); err != nil {
		return err
	}
	if err := n.ImportImage(ctx, image); err != nil {
		return err
	}
	if err := n.Kubelet.Start(ctx); err != nil {
		return err
	}
	return n.Proxy.Start(ctx)
}

func (k *Kubernetes) addKubelet(n *KubernetesNode, addrs []netip.Addr) error {
	name := n.NodeName()
	if err := k.ca.issueServer("kubelet-"+name, addrs); err != nil {
		return err
	}
	cert, key := k.ca.files("kubelet-" + name)
	kubeconfig, err := k.NodeKubeconfig(name)
	if err != nil {
		return err
	}
	config := filepath.Join(n.dir, "kubelet.yaml")
	err = writeYAML(config, map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1",
		"kind":       "KubeletConfiguration",
		"authentication": map[string]any{
			"anonymous": map[string]any{"enabled": false},
			"webhook":   map[string]any{"enabled": true},
			"x509":      map[string]any{"clientCAFile": k.CAFile()},
		},
		"authorization":             map[string]any{"mode": "Webhook"},
		"tlsCertFile":               cert,
		"tlsPrivateKeyFile":         key,
		"containerRuntimeEndpoint":  "unix://" + ContainerdSocket,
		"volumePluginDir":           "/var/lib/kubelet/plugins",
		"clusterDNS":                []string{KubernetesDNS.String()},
		"clusterDomain":             "cluster.local",
		"nodeStatusUpdateFrequency": "2s",

		// The host is shared with others, whose swap, full disk or old cgroups are not the
		// cluster's business; nor may it lower its own oom_score_adj everywhere.
		"failSwapOn":                  false,
		"failCgroupV1":                false,
		"oomScoreAdj":                 0,
		"evictionHard":                map[string]string{"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
		"imageGCHighThresholdPercent": 100,

		// All containers are below the machine's cgroup, where the Net finds them.
		"cgroupDriver":           "cgroupfs",
		"cgroupRoot":             n.Cgroup(),
		"cgroupsPerQOS":          true,
		"enforceNodeAllocatable": []string{},
	})
	if err != nil {
		return err
	}
	n.Kubelet = n.newService("kubelet", filepath.Join(k.binDir, "kubelet"), []string{
		"--config=" + config,
		"--kubeconfig=" + kubeconfig,
		"--hostname-override=" + name,
		"--node-ip=" + Join(addrs, ","),
	}, func(ctx context.Context) error {
		_, err := n.get(ctx, "http://127.0.0.1:10248", "/healthz")
		return err
	})
	return nil
}

func (k *Kubernetes) addProxy(n *KubernetesNode) error {
	kubeconfig, err := k.Kubeconfig("system:kube-proxy")
	if err != nil {
		return err
	}
	config := filepath.Join(n.dir, "kube-proxy.yaml")
	err = writeYAML(config, map[string]any{
		"apiVersion":       "kubeproxy.config.k8s.io/v1alpha1",
		"kind":             "KubeProxyConfiguration",
		"mode":             "nftables",
		"clientConnection": map[string]any{"kubeconfig": kubeconfig},
		"clusterCIDR":      Join(KubernetesPodCIDRs, ","),
		"hostnameOverride": n.NodeName(),
		"oomScoreAdj":      0,
		// The size is the whole host's, and a namespace can't set it.
		"conntrack": map[string]any{"maxPerCore": 0, "min": 0},
	})
	if err != nil {
		return err
	}
	n.Proxy = n.newService("kube-proxy", filepath.Join(k.binDir, "kube-proxy"), []string{"--config=" + config}, func(ctx context.Context) error {
		_, err := n.get(ctx, "http://127.0.0.1:10256", "/livez")
		return err
	})
	return nil
}
