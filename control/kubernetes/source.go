// Package kubernetes is the control source that is Kubernetes' Node objects. What a node
// says of itself stands in annotations of its own Node, under the one prefix weft.network/;
// its pod CIDRs are those that Kubernetes gave it, spec.podCIDRs.
//
// It writes these annotations, the condition NetworkUnavailable, events about stranded pods and,
// if asked to, flannel's annotations, all of this node's own Node. It writes nothing else, and
// reads no other kind of object. It never believes an annotation: one that is wrong costs its node only.
package kubernetes

import (
	"context"
	"fmt"
	"net/netip"
	"sync"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/control"
	"weft/internal/family"
)

// Options are what a Source must know.
type Options struct {
	// Kubeconfig is the path of a kubeconfig; empty for the service account of the pod in
	// which this process runs.
	Kubeconfig string

	// Node is this node's name, and that of its Node.
	Node string

	// Families are those in which this node can be reached, the preferred one first. They
	// choose among the Node's addresses. None stands for IPv4 and then IPv6.
	Families []family.Family

	// OneAddress says that this node receives datagrams at its endpoint's address alone, so that
	// it could prove no other InternalIP.
	OneAddress bool

	// ClusterCIDRs are the ranges of all pods' addresses: none of them is a node's.
	ClusterCIDRs []netip.Prefix

	// FlannelCompat has flannel's nodes taken for kernel VXLAN peers, and this node be one
	// of theirs. VNI is then the network identifier that all share.
	FlannelCompat bool
	VNI           uint32
}

// Source reads the Nodes and writes this node's own. It implements control.Registry.
type Source struct {
	Options
	identity string

	// renew returns the API with other credentials, if there are any since the last call.
	renew    func() (nodeAPI, bool)
	renewing sync.Mutex // held while renew runs

	control.Registrant

	// Contact is when the API server answered Run, or reported a change of a Node.
	control.Contact

	mu  sync.Mutex
	api nodeAPI
}

// New returns the source that speaks to the API server of a kubeconfig. It doesn't speak to
// it yet. From the first call on, client-go logs nothing any more in this process: whatever
// it has to say comes out of Run and Load.
func New(o Options) (*Source, error) {
	c, err := connect(o.Kubeconfig)
	if err != nil {
		return nil, err
	}
	s := newSource(o, c.api)
	s.identity, s.renew = c.identity, c.renew
	return s, nil
}

func newSource(o Options, api nodeAPI) *Source {
	quiet()
	if len(o.Families) == 0 {
		o.Families = family.All[:]
	}
	return &Source{Options: o, api: api}
}

func (s *Source) currentAPI() nodeAPI {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.api
}

// readCredentials has the credentials read again after the API server has refused them.
func (s *Source) readCredentials() {
	if s.renew == nil {
		return
	}
	s.renewing.Lock()
	defer s.renewing.Unlock()
	if api, is := s.renew(); is {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.api = api
	}
}

// Load returns what the Nodes say now. It writes nothing, and this node needn't be one.
func (s *Source) Load(ctx context.Context) (control.State, error) {
	// The API server may answer out of its cache.
	list, err := s.currentAPI().List(ctx, meta.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return control.State{}, fmt.Errorf("list the Nodes: %w", s.withRemedy(err))
	}
	nodes := newNodes(s.Options, nil)
	for i := range list.Items {
		nodes.put(&list.Items[i])
	}
	return nodes.state(), nil
}

// origin names the source.
const origin = "kubernetes"

// Origin names the source.
func (s *Source) Origin() string { return origin }

// Identity implements control.Registry.
func (s *Source) Identity() string { return s.identity }

// signal has the channel, which holds one, receive once more.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
