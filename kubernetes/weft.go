package kubernetes

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/internal/status"
	"weft/internal/testnet"
)

// The ServiceAccount of the manifests that weft ships.
const (
	weftNamespace = "weft"
	weftAccount   = "weft"
)

// littleWhile is more than anything takes here, on a machine that others use too.
const littleWhile = 2 * time.Minute

// waitALittle is Wait with a limit that leaves time to report what was wrong.
func waitALittle(ctx context.Context, what string, cond func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, littleWhile)
	defer cancel()
	return Wait(ctx, what, cond)
}

// Weft is a cluster whose nodes' weftds find each other in an API server, each with a
// token of its own Node.
type Weft struct {
	Cluster *testnet.Cluster

	// Server and Admin are nil until Permit.
	Server *testnet.APIServer
	Admin  *Client

	// kubeconfigs are the nodes', as far as they were given one.
	kubeconfigs map[string]string
}

// NewWeft makes a cluster in which nothing runs yet. The option Configure is called last.
func NewWeft(ctx context.Context, n *testnet.Net, o testnet.ClusterOptions) (*Weft, error) {
	w := &Weft{kubeconfigs: make(map[string]string)}
	configure := o.Configure
	o.Configure = func(weft map[string]any) {
		weft["clusterCIDRs"] = testnet.KubernetesPodCIDRs
		if kubeconfig, ok := w.kubeconfigs[weft["node"].(string)]; ok {
			weft["control"] = map[string]any{"kubernetes": map[string]any{"kubeconfig": kubeconfig}}
		}
		if configure != nil {
			configure(weft)
		}
	}
	var err error
	w.Cluster, err = n.NewCluster(ctx, o)
	return w, err
}

// Permit applies weft's rights to the API server. The manifests are those of
// deploy/kubernetes/rights.
func (w *Weft) Permit(ctx context.Context, server *testnet.APIServer, manifests string) (err error) {
	w.Server = server
	if w.Admin, err = Admin(server); err != nil {
		return err
	}
	return w.Admin.Apply(ctx, manifests)
}

// GiveToken gives a node a token that is bound to the Node of its name as that is now.
// Its weftd uses it from its next start on, or from a minute later.
func (w *Weft) GiveToken(ctx context.Context, node string) error {
	token, err := w.Admin.NodeToken(ctx, weftNamespace, weftAccount, node)
	if err != nil {
		return err
	}
	w.kubeconfigs[node], err = w.Server.TokenKubeconfig("weft-"+node, token)
	return err
}

// AsNode returns a client with the rights of a node's weftd, which was given a token.
func (w *Weft) AsNode(node string) (*Client, error) { return Connect(w.Server, w.kubeconfigs[node]) }

// Node returns a node by its number, the first one is 1.
func (w *Weft) Node(number int) *testnet.Node { return w.Cluster.Nodes()[number-1] }

// AwaitRegistered returns the Node as soon as weftd has said there where it is, and that
// the network is up.
func (w *Weft) AwaitRegistered(ctx context.Context, n *testnet.Node) (*core.Node, error) {
	want := map[string]string{"weft.network/endpoint": n.Entry().Endpoint.String(), "weft.network/key": n.Entry().Key}
	return w.Admin.WaitNode(ctx, n.Entry().Name, func(node *core.Node) error {
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
}

// PodCIDRs are those that Kubernetes gave to a node.
func (w *Weft) PodCIDRs(ctx context.Context, n *testnet.Node) (cidrs []netip.Prefix, err error) {
	node, err := w.Admin.CoreV1().Nodes().Get(ctx, n.Entry().Name, meta.GetOptions{})
	if err != nil {
		return nil, err
	}
	for _, text := range node.Spec.PodCIDRs {
		cidr, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("the pod CIDRs of %s: %w", node.Name, err)
		}
		cidrs = append(cidrs, cidr)
	}
	return cidrs, nil
}

// AwaitStatus returns a weftd's status as soon as cond returns nil for it.
func AwaitStatus(ctx context.Context, n *testnet.Node, cond func(status.Report) error) (report status.Report, err error) {
	err = waitALittle(ctx, n.Entry().Name+"'s status", func(ctx context.Context) (err error) {
		if report, err = status.Fetch(ctx, n.Socket()); err != nil {
			return err
		}
		return cond(report)
	})
	return report, err
}

// PeersAre is a condition for AwaitStatus. The names are sorted.
func PeersAre(want ...string) func(status.Report) error {
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

// AwaitMetric waits until a metric without labels has a value.
func AwaitMetric(ctx context.Context, n *testnet.Node, metric string, value int) error {
	return waitALittle(ctx, metric, func(ctx context.Context) error {
		metrics, err := n.Metrics(ctx)
		if got := metrics[metric]; err == nil && got != fmt.Sprint(value) {
			err = fmt.Errorf("it is %q, not %d", got, value)
		}
		return err
	})
}
