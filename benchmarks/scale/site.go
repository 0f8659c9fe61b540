package scale

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/control"
	"weft/internal/status"
	"weft/internal/testnet"
)

// netPrefix begins the names of the namespaces.
const netPrefix = "weft-bench-scale"

const (
	// changeLimit is how long a single change may take before it counts as lost, and
	// allLimit how long all nodes may.
	changeLimit = 30 * time.Second
	allLimit    = 3 * time.Minute

	// startPoll is how often a weftd that starts is asked whether it is ready. Until it
	// is, nothing listens there, and asking costs it nothing.
	startPoll = 5 * time.Millisecond
)

// Programs says where what is measured is.
type Programs struct {
	Weft       string // the folder of weftd
	Kubernetes string // the folder of kube-apiserver
	Manifests  string // what weft's users apply to Kubernetes, a folder
}

// site is one real weftd beside simulated nodes.
type site struct {
	Options
	net       *testnet.Net
	node      *testnet.Node
	directory directory
	nodes     []control.Node // the simulated ones, as they are listed now
	moves     []int          // how often each has moved
}

// newSite builds everything, and starts all but weftd.
func newSite(ctx context.Context, o Options) (s *site, err error) {
	s = &site{Options: o}
	if s.net, err = testnet.New(ctx, testnet.Options{Prefix: netPrefix, BinDir: o.Programs.Weft}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	var source map[string]any // what weft.yaml says under control; nil for the file
	cluster, err := s.net.NewCluster(ctx, testnet.ClusterOptions{Nodes: 1, Sealed: true, Configure: func(weft map[string]any) {
		weft["clusterCIDRs"] = clusterCIDRs
		if source != nil { // weft.yaml is written again when weftd starts
			weft["control"] = source
		}
	}})
	if err != nil {
		return nil, err
	}
	s.node = cluster.Nodes()[0]
	switch o.Source {
	case Etcd:
		s.directory, source, err = opened(startEtcd(ctx, s.net, cluster))
	case Kubernetes:
		s.directory, source, err = opened(startKubernetes(ctx, s.net, cluster, o.Programs))
	case File:
		s.directory = newFileDirectory(s.node)
	default:
		err = fmt.Errorf("there is no source %q", o.Source)
	}
	if err != nil {
		return nil, err
	}
	for i := range o.Nodes {
		s.nodes = append(s.nodes, simulated(i, 0, s.cidrs()))
	}
	s.moves = make([]int, o.Nodes)
	return s, s.directory.fill(ctx, s.nodes)
}

// opened returns no directory rather than one that is nil inside.
func opened[D directory](d D, source map[string]any, err error) (directory, map[string]any, error) {
	if err != nil {
		return nil, nil, err
	}
	return d, source, nil
}

func (s *site) close() error {
	var err error
	if s.directory != nil {
		err = s.directory.close()
	}
	return errors.Join(err, s.net.Close())
}

// moved is a node as it is after its next move.
func (s *site) moved(number int) control.Node {
	s.moves[number]++
	return simulated(number, s.moves[number], s.cidrs())
}

// start starts weftd, and returns when all simulated nodes are in its FIB, the guard table
// and the routes: it does not listen for questions before.
func (s *site) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, allLimit)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.node.Start(ctx) })
	group.Go(func() error { return s.awaitPeers(ctx) })
	return group.Wait()
}

func (s *site) awaitPeers(ctx context.Context) error {
	poll := time.NewTicker(startPoll)
	defer poll.Stop()
	for {
		peers, err := s.metric(ctx, "weft_peers")
		if err == nil && int(peers) == len(s.nodes) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %d peers: there are %v: %w", len(s.nodes), peers, errors.Join(context.Cause(ctx), err))
		case <-poll.C:
		}
	}
}

// metric returns the value of one of weftd's metrics.
func (s *site) metric(ctx context.Context, name string) (float64, error) {
	metrics, err := s.node.Metrics(ctx)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(metrics[name], 64)
}

// forget has the next start of weftd wait for its source.
func (s *site) forget() error {
	return os.Remove(filepath.Join(s.node.Dir(), "state", "nodes.snapshot"))
}

// verify fails unless weftd says of each peer what its directory says.
func (s *site) verify(ctx context.Context) error {
	report, err := status.Fetch(ctx, s.node.Socket())
	if err != nil {
		return err
	}
	if len(report.Peers) != len(s.nodes) || report.State.Rejected != "" || report.State.RejectedNodes != "" {
		return fmt.Errorf("weftd has %d peers, not %d; %s%s", len(report.Peers), len(s.nodes), report.State.Rejected, report.State.RejectedNodes)
	}
	want := make(map[string]control.Node, len(s.nodes))
	for _, n := range s.nodes {
		want[n.Name] = n
	}
	for _, p := range report.Peers {
		n := want[p.Name]
		for _, cidr := range n.PodCIDRs {
			if !slices.Contains(p.Prefixes, cidr) {
				return fmt.Errorf("weftd has %s with %v, without %s", p.Name, p.Prefixes, cidr)
			}
		}
		if p.Endpoint != n.Endpoint || p.Link == nil || p.Key != n.Key.String() {
			return fmt.Errorf("weftd has %s at %s, not %s", p.Name, p.Endpoint, n.Endpoint)
		}
	}
	return nil
}
