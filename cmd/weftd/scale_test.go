package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"weft/control"
	"weft/internal/testnet"
	"weft/peer"
)

// simulated is a node that is registered in etcd and nothing else.
func simulated(number int) control.Node {
	hi, lo := byte(number>>8), byte(number)
	return control.Node{
		Name:     fmt.Sprintf("sim%d", number),
		Endpoint: netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 16, hi, lo}), 9338),
		Key:      peer.Fingerprint{1, hi, lo},
		PodCIDRs: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100 + hi, lo, 0}), 24),
			netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0x03, 0x00, 0, 0, hi, lo}), 64),
		},
	}
}

// register writes what nodes write when they register, some nodes in each transaction.
func register(t *testing.T, client *clientv3.Client, nodes ...control.Node) {
	t.Helper()
	const mostOps = 120
	var ops []clientv3.Op
	for i, n := range nodes {
		entry, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		ops = append(ops, clientv3.OpPut("/weft/podcidrs/v4/"+n.Name, n.PodCIDRs[0].String()),
			clientv3.OpPut("/weft/podcidrs/v6/"+n.Name, n.PodCIDRs[1].String()), clientv3.OpPut("/weft/nodes/"+n.Name, string(entry)))
		if len(ops) == mostOps || i == len(nodes)-1 {
			if _, err := client.Txn(t.Context()).Then(ops...).Commit(); err != nil {
				t.Fatal(err)
			}
			ops = nil
		}
	}
}

// TestChangeAmongManyNodesIsActive: one real weftd, beside as many nodes as
// Kubernetes allows that are registered in a real etcd. `make bench-scale` measures the rest,
// and the other control sources.
func TestChangeAmongManyNodesIsActive(t *testing.T) {
	changes, others := testnet.Sampled(5, 50), testnet.Sampled(50, 4999)
	c := newEtcdCluster(t, 1, testnet.EtcdOptions{Members: 1}, func(weft map[string]any) {
		weft["clusterCIDRs"] = []string{"10.8.0.0/16", "10.64.0.0/10", "fd00:300::/32"} // weftd takes the first
		weft["control"].(map[string]any)["etcd"].(map[string]any)["maskIPv4"] = 24
	})
	node := c.Nodes()[0]
	cert, key, err := c.etcd.ClientCert("root")
	if err != nil {
		t.Fatal(err)
	}
	tlsConfig, err := transport.TLSInfo{CertFile: cert, KeyFile: key, TrustedCAFile: c.etcd.CAFile()}.ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: c.etcd.Endpoints(), TLS: tlsConfig, DialOptions: []grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return node.Dial(ctx, "tcp", strings.TrimPrefix(address, "https://"))
		}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var nodes []control.Node
	for i := range others {
		nodes = append(nodes, simulated(i))
	}
	register(t, client, nodes...)

	started := time.Now()
	if err := node.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("weftd was ready among %d nodes after %v", others+1, time.Since(started))
	peers := func() int {
		n, err := strconv.Atoi(metric(t, node, "weft_peers"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	awaitPeers := func(want int) {
		t.Helper()
		for deadline := time.Now().Add(testnet.WaitLimit); peers() != want; time.Sleep(2 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("there are %d peers, want %d", peers(), want)
			}
		}
	}
	awaitPeers(others)

	var took []time.Duration
	for i := range changes {
		register(t, client, simulated(others+i))
		acknowledged := time.Now()
		awaitPeers(others + i + 1)
		took = append(took, time.Since(acknowledged))
	}
	slices.Sort(took)
	t.Logf("a node that registered was in the FIB after p50 %v, p99 %v", took[len(took)/2], took[len(took)*99/100])
}
