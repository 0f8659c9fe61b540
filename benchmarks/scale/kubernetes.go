package scale

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"

	"weft/control"
	"weft/internal/testnet"
	"weft/kubernetes"
)

// kubernetesDirectory is a real API server with Nodes of which each has a heartbeat.
type kubernetesDirectory struct {
	client *kubernetes.Client

	beating sync.WaitGroup
	stop    context.CancelFunc
	failed  error // why heartbeats have ended; valid after close
}

// heartbeatInterval is how often each kubelet writes the status of its Node though nothing
// has changed there: nodeStatusReportFrequency, by default.
const heartbeatInterval = 5 * time.Minute

// startKubernetes adds an API server to the cluster's segment, with the rights and policies
// that weft's users apply, and the real node's Node. It returns what weft.yaml says of it.
func startKubernetes(ctx context.Context, network *testnet.Net, cluster *testnet.Cluster, p Programs) (*kubernetesDirectory, map[string]any, error) {
	server, err := network.AddAPIServer(ctx, cluster.Segment, testnet.APIServerOptions{BinDir: p.Kubernetes})
	if err != nil {
		return nil, nil, err
	}
	client, err := adminOf(server)
	if err != nil {
		return nil, nil, err
	}
	if err := client.Apply(ctx, p.Manifests); err != nil {
		return nil, nil, err
	}
	d := &kubernetesDirectory{client: client, stop: func() {}}
	node := cluster.Nodes()[0].Entry()
	if err := d.create(ctx, object(control.Node{Name: node.Name, Endpoint: node.Endpoint, PodCIDRs: node.PodCIDRs})); err != nil {
		return nil, nil, err
	}
	token, err := client.NodeToken(ctx, "weft", "weft", node.Name)
	if err != nil {
		return nil, nil, err
	}
	kubeconfig, err := server.TokenKubeconfig("weft", token)
	return d, map[string]any{"kubernetes": map[string]any{"kubeconfig": kubeconfig}}, err
}

// adminOf speaks protobuf, as the control plane's own programs: thousands of Nodes in JSON
// would take the processors that weftd is measured on.
func adminOf(server *testnet.APIServer) (*kubernetes.Client, error) {
	kubeconfig, err := server.AdminKubeconfig()
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig %s: %w", kubeconfig, err)
	}
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return kubernetes.ConnectWith(server, config)
}

// fill makes the Nodes, and has their kubelets' hearts beat from then on.
func (d *kubernetesDirectory) fill(ctx context.Context, nodes []control.Node) error {
	err := each(ctx, nodes, func(ctx context.Context, n control.Node) error { return d.create(ctx, registered(n)) })
	if err != nil {
		return err
	}
	ctx, d.stop = context.WithCancel(ctx)
	d.beating.Go(func() { d.failed = d.beat(ctx, nodes) })
	return nil
}

func (d *kubernetesDirectory) create(ctx context.Context, n *core.Node) error {
	if _, err := d.client.CoreV1().Nodes().Create(ctx, n, meta.CreateOptions{}); err != nil {
		return fmt.Errorf("make the Node %s: %w", n.Name, err)
	}
	return nil
}

// join has kubelet and the controller manager make the Node, and then weftd register there.
func (d *kubernetesDirectory) join(ctx context.Context, n control.Node) error {
	if err := d.create(ctx, object(n)); err != nil {
		return err
	}
	return d.move(ctx, n)
}

func (d *kubernetesDirectory) move(ctx context.Context, n control.Node) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations(n)}})
	if err != nil {
		return fmt.Errorf("encode node %s: %w", n.Name, err)
	}
	if _, err := d.client.CoreV1().Nodes().Patch(ctx, n.Name, types.MergePatchType, patch, meta.PatchOptions{FieldManager: "weft"}); err != nil {
		return fmt.Errorf("register %s: %w", n.Name, err)
	}
	return nil
}

func (d *kubernetesDirectory) leave(ctx context.Context, n control.Node) error {
	if err := d.client.CoreV1().Nodes().Delete(ctx, n.Name, meta.DeleteOptions{}); err != nil {
		return fmt.Errorf("delete the Node %s: %w", n.Name, err)
	}
	return nil
}

// beat writes the status of one Node after the other, so that each has its turn once in an
// interval. The kubelets' Leases, every 10 seconds, are left out: weftd does not watch them.
func (d *kubernetesDirectory) beat(ctx context.Context, nodes []control.Node) error {
	turn := time.NewTicker(heartbeatInterval / time.Duration(len(nodes)))
	defer turn.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return nil
		case <-turn.C:
		}
		patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": conditions(time.Now())}})
		if err != nil {
			return err
		}
		name := nodes[i%len(nodes)].Name
		_, err = d.client.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, patch, meta.PatchOptions{FieldManager: "kubelet"}, "status")
		if err != nil && ctx.Err() == nil && !apierrors.IsNotFound(err) { // it may just have left
			return fmt.Errorf("write the status of the Node %s: %w", name, err)
		}
	}
}

func (d *kubernetesDirectory) close() error {
	d.stop()
	d.beating.Wait()
	return d.failed
}
