package testnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// PodLink is the name of a pod's interface.
const PodLink = "eth0"

// Pod is a namespace that the CNI plugin wired.
type Pod struct {
	*Namespace
	PodName string
	Node    *Node

	// Addrs are the pod's addresses, in the order in which the plugin gave them.
	Addrs []netip.Addr

	// kubeNamespace is empty for a pod that is not of Kubernetes.
	kubeNamespace string

	// network is what the pod was added to. It is needed for its removal, when
	// weftd may have taken its configuration back.
	network *libcni.NetworkConfigList
}

// Addr returns the pod's IPv4 or IPv6 address.
func (p *Pod) Addr(v6 bool) (netip.Addr, bool) {
	for _, a := range p.Addrs {
		if a.Is6() == v6 {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// AddPod makes a pod's namespace and has the CNI plugin wire it, as a container
// runtime on the node would: by the configuration that weftd wrote.
func (n *Node) AddPod(ctx context.Context, name string) (*Pod, error) {
	return n.AddPodOf(ctx, "", name)
}

// AddPodOf is AddPod for a pod of Kubernetes in one of its namespaces.
func (n *Node) AddPodOf(ctx context.Context, kubeNamespace, name string) (*Pod, error) {
	pod, err := n.addPod(ctx, kubeNamespace, name)
	if err != nil {
		return nil, fmt.Errorf("add pod %s on %s: %w", name, n.options.Name, err)
	}
	return pod, nil
}

func (n *Node) addPod(ctx context.Context, kubeNamespace, name string) (*Pod, error) {
	network, err := n.loadNetwork(ctx)
	if err != nil {
		return nil, err
	}
	ns, err := n.net.AddNamespace(ctx, name)
	if err != nil {
		return nil, err
	}
	pod := &Pod{Namespace: ns, PodName: name, Node: n, kubeNamespace: kubeNamespace, network: network}
	result, err := n.cni().AddNetworkList(ctx, network, pod.attachment())
	if err == nil {
		pod.Addrs, err = ResultAddrs(result)
	}
	if err != nil {
		// What a runtime does too: DEL releases what a failed ADD may hold.
		cleanup := context.WithoutCancel(ctx)
		return nil, errors.Join(err,
			n.cni().DelNetworkList(cleanup, network, pod.attachment()),
			n.net.removeNamespace(cleanup, ns))
	}
	n.mu.Lock()
	n.pods[name] = pod
	n.mu.Unlock()
	return pod, nil
}

// DeletePod has the CNI plugin release the pod's address and removes its namespace,
// whether weftd runs or not.
func (n *Node) DeletePod(ctx context.Context, name string) error {
	n.mu.Lock()
	pod, ok := n.pods[name]
	delete(n.pods, name)
	n.mu.Unlock()
	if !ok {
		return fmt.Errorf("delete pod %s: not on %s", name, n.options.Name)
	}
	err := n.cni().DelNetworkList(ctx, pod.network, pod.attachment())
	if err := errors.Join(err, n.net.removeNamespace(ctx, pod.Namespace)); err != nil {
		return fmt.Errorf("delete pod %s on %s: %w", name, n.options.Name, err)
	}
	return nil
}

// attachment is the pod as a container runtime names it towards the plugin.
func (p *Pod) attachment() *libcni.RuntimeConf {
	c := &libcni.RuntimeConf{ContainerID: p.Name(), NetNS: p.Path(), IfName: PodLink}
	if p.kubeNamespace != "" {
		c.Args = [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", p.kubeNamespace}, {"K8S_POD_NAME", p.PodName}}
	}
	return c
}

// loadNetwork returns the network that weftd configured, as soon as there is one.
func (n *Node) loadNetwork(ctx context.Context) (*libcni.NetworkConfigList, error) {
	var network *libcni.NetworkConfigList
	err := Wait(ctx, "weftd to write the CNI configuration", func(context.Context) (err error) {
		network, err = libcni.LoadNetworkConf(n.ConfDir(), networkName)
		return err
	})
	return network, err
}

// cni is the container runtime's side of CNI on this node.
func (n *Node) cni() *libcni.CNIConfig {
	plugins := []string{n.BinDir()}
	return libcni.NewCNIConfigWithCacheDir(plugins, filepath.Join(n.dir, "cni-cache"), &nodeExec{node: n.Namespace})
}

// nodeExec runs plugins in the node's namespace, where a runtime's would be.
type nodeExec struct {
	invoke.RawExec
	version.PluginDecoder
	node *Namespace
}

func (e *nodeExec) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var stdout []byte
	environ = append(environ, e.node.net.claim.marker())
	err := e.node.Do(func() (err error) {
		stdout, err = e.RawExec.ExecPlugin(ctx, path, stdin, environ)
		return err
	})
	return stdout, err
}

// ResultAddrs returns the addresses in what a CNI plugin's ADD answers; none is an error.
func ResultAddrs(result types.Result) ([]netip.Addr, error) {
	r, err := types100.NewResultFromResult(result)
	if err != nil {
		return nil, fmt.Errorf("read the plugin's result: %w", err)
	}
	var addrs []netip.Addr
	for _, ip := range r.IPs {
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		if !ok {
			return nil, fmt.Errorf("read the plugin's result: not an address: %v", ip.Address)
		}
		addrs = append(addrs, addr.Unmap())
	}
	if len(addrs) == 0 {
		return nil, errors.New("the plugin's result has no address")
	}
	return addrs, nil
}
