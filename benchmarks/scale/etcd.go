package scale

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"weft/control"
	"weft/internal/testnet"
)

// etcdDirectory is a real etcd with one member, by TLS.
type etcdDirectory struct{ client *clientv3.Client }

// startEtcd adds an etcd to the cluster's segment. It returns what weft.yaml says of it.
func startEtcd(ctx context.Context, network *testnet.Net, cluster *testnet.Cluster) (*etcdDirectory, map[string]any, error) {
	etcd, err := network.AddEtcd(ctx, cluster.Segment, testnet.EtcdOptions{Members: 1, TLS: true})
	if err != nil {
		return nil, nil, err
	}
	settings, err := etcd.Control(cluster.Nodes()[0].Entry().Name)
	if err != nil {
		return nil, nil, err
	}
	cert, key, err := etcd.ClientCert("root")
	if err != nil {
		return nil, nil, err
	}
	tls, err := transport.TLSInfo{CertFile: cert, KeyFile: key, TrustedCAFile: etcd.CAFile()}.ClientConfig()
	if err != nil {
		return nil, nil, fmt.Errorf("read etcd's certificates: %w", err)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: etcd.Endpoints(), TLS: tls, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return cluster.Outside.Dial(ctx, "tcp", strings.TrimPrefix(address, "https://"))
		})},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("make a client of etcd: %w", err)
	}
	return &etcdDirectory{client}, settings, nil
}

func (d *etcdDirectory) fill(ctx context.Context, nodes []control.Node) error {
	return each(ctx, nodes, d.join)
}

// keys are a node's entry and its claims (package control/etcd).
func keys(name string) (entry, claim4, claim6 string) {
	return "/weft/nodes/" + name, "/weft/podcidrs/v4/" + name, "/weft/podcidrs/v6/" + name
}

func (d *etcdDirectory) join(ctx context.Context, n control.Node) error {
	value, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encode node %s: %w", n.Name, err)
	}
	entry, claim4, claim6 := keys(n.Name)
	return d.commit(ctx, "register "+n.Name,
		clientv3.OpPut(claim4, n.PodCIDRs[0].String()), clientv3.OpPut(claim6, n.PodCIDRs[1].String()), clientv3.OpPut(entry, string(value)))
}

// move leaves the claims alone, as weftd does.
func (d *etcdDirectory) move(ctx context.Context, n control.Node) error {
	value, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("encode node %s: %w", n.Name, err)
	}
	entry, _, _ := keys(n.Name)
	return d.commit(ctx, "move "+n.Name, clientv3.OpPut(entry, string(value)))
}

func (d *etcdDirectory) leave(ctx context.Context, n control.Node) error {
	entry, claim4, claim6 := keys(n.Name)
	return d.commit(ctx, "remove "+n.Name, clientv3.OpDelete(entry), clientv3.OpDelete(claim4), clientv3.OpDelete(claim6))
}

func (d *etcdDirectory) commit(ctx context.Context, what string, ops ...clientv3.Op) error {
	if _, err := d.client.Txn(ctx).Then(ops...).Commit(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (d *etcdDirectory) close() error { return d.client.Close() }
