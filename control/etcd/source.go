package etcd

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"weft/control"
	"weft/internal/family"
	"weft/internal/strict"
)

// requestTimeout is how long etcd may take to answer.
const requestTimeout = 3 * time.Second

// Source is the nodes that registered themselves in one etcd. It implements control.Registry.
type Source struct {
	options     Options
	identity    string
	dialOptions []grpc.DialOption // of tests, which dial from elsewhere

	// Registrant keeps what this node registers. etcd does not store whether a node is ready.
	control.Registrant

	// Contact is when etcd answered Run: it answers every progressInterval.
	control.Contact

	// held are the pod CIDRs that this node had when Run last emitted a State; before that,
	// those that it registered with count. Only Run uses it.
	held []netip.Prefix
}

// New returns the source for the options. It reads the files, but dials nothing.
func New(o Options) (*Source, error) {
	if _, err := o.tlsConfig(); err != nil {
		return nil, err
	}
	identity, err := o.identity()
	if err != nil {
		return nil, err
	}
	return &Source{options: o, identity: identity}, nil
}

// Origin names the source.
func (s *Source) Origin() string { return "etcd " + s.options.Prefix }

// Identity implements control.Registry.
func (s *Source) Identity() string { return s.identity }

// Load returns what is registered now. It writes nothing.
func (s *Source) Load(ctx context.Context) (control.State, error) {
	client, err := s.connect(ctx)
	if err != nil {
		return control.State{}, s.explain("list the nodes", err)
	}
	defer client.Close()
	l, err := s.list(ctx, client, nil)
	if err != nil {
		return control.State{}, s.explain("list the nodes", err)
	}
	return l.state(nil), nil
}

// Remove removes a node's entry and its claims at once, so that another node can claim its
// pod CIDRs. Stop its weftd before: one that runs registers again, with the same pod CIDRs.
// It is an error if there is no such node.
func (s *Source) Remove(ctx context.Context, name string) error {
	if err := strict.CheckNodeName(name); err != nil {
		return err
	}
	task := "remove node " + name
	client, err := s.connect(ctx)
	if err != nil {
		return s.explain(task, err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answer, err := client.Txn(ctx).Then(
		clientv3.OpDelete(s.options.entryKey(name)),
		clientv3.OpDelete(s.options.claimKey(family.IPv4, name)),
		clientv3.OpDelete(s.options.claimKey(family.IPv6, name)),
	).Commit()
	if err != nil {
		return s.explain(task, err)
	}
	for _, a := range answer.Responses {
		if a.GetResponseDeleteRange().Deleted > 0 {
			return nil
		}
	}
	return fmt.Errorf("%s: there is no such node in etcd under %s; `weft node list` lists the nodes", task, s.options.Prefix)
}

// connect makes a client. With a user name it asks etcd for a token; otherwise nothing has
// been sent yet when it returns.
func (s *Source) connect(ctx context.Context) (*clientv3.Client, error) {
	config, err := s.options.tlsConfig()
	if err != nil {
		return nil, fileError{err}
	}
	return clientv3.New(clientv3.Config{
		Endpoints: s.options.Endpoints,
		TLS:       config,
		Username:  s.options.Username,
		Password:  s.options.Password,
		Context:   ctx,
		// The source reports a failure once.
		Logger:      zap.NewNop(),
		DialTimeout: requestTimeout, // for the token only
		// gRPC pings no sooner than that; the timeout also bounds how long what was sent
		// may stay without an answer of the other end's TCP.
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		// Once more with a new token, if the old one was over. Run has its own patience.
		MaxUnaryRetries: 2,
		DialOptions: append([]grpc.DialOption{
			grpc.WithChainUnaryInterceptor(failFast),
			grpc.WithChainStreamInterceptor(onlyOnce()),
		}, s.dialOptions...),
	})
}

// failFast has a request fail with the reason why no member can be reached, rather than
// by the end of its time.
func failFast(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	return invoke(ctx, method, request, answer, conn, append(opts, grpc.WaitForReady(false))...)
}

// onlyOnce has a client watch only once. By itself it would begin again wherever it can,
// for as long as it takes, and say nothing of it. And after an answer about its progress it
// could begin behind what it has not received: etcd before 3.4.25 and 3.5.8 gives such
// answers too early (https://github.com/etcd-io/etcd/issues/15220).
func onlyOnce() grpc.StreamClientInterceptor {
	var begun atomic.Bool
	return func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		if begun.Swap(true) {
			return nil, status.Error(codes.Aborted, "the watch was interrupted")
		}
		return stream(ctx, desc, conn, method, opts...)
	}
}

// list asks for all keys, as the majority of the members has them.
func (s *Source) list(ctx context.Context, client *clientv3.Client, before *listing) (*listing, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answer, err := client.Get(ctx, s.options.folder(), clientv3.WithPrefix())
	if err != nil {
		return nil, err
	}
	return newListing(&s.options, answer, before), nil
}
