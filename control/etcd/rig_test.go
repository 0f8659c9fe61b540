package etcd

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"weft/control"
	"weft/internal/testnet"
	"weft/peer"
)

// rig is an etcd cluster, and a host beside it in which sources run.
type rig struct {
	*testnet.Etcd
	host *testnet.Namespace
}

func newRig(t *testing.T, o testnet.EtcdOptions) *rig {
	t.Helper()
	n := testnet.ForTest(t, testnet.Options{Prefix: "weft-etcd"})
	segment, err := n.AddSegment(t.Context(), "segment", testnet.Wire{})
	if err != nil {
		t.Fatal(err)
	}
	host, err := n.AddNamespace(t.Context(), "host")
	if err != nil {
		t.Fatal(err)
	}
	at := testnet.End{Namespace: host, Link: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.77.1/24")}}
	if err := segment.Attach(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	etcd, err := n.AddEtcd(within(t), segment, o)
	if err != nil {
		t.Fatal(err)
	}
	return &rig{etcd, host}
}

// within returns the test's context with a deadline, so that a hang ends.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testnet.WaitLimit)
	t.Cleanup(cancel)
	return ctx
}

func (r *rig) dialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
		return r.host.Dial(ctx, "tcp", address)
	})}
}

// source returns the source of a node, whose options are changed as the test likes.
func (r *rig) source(t *testing.T, name string, changes ...func(*Options)) *Source {
	t.Helper()
	o := Options{
		Endpoints:    r.Endpoints(),
		Prefix:       "/weft",
		Node:         name,
		ClusterCIDRs: prefixes("10.244.0.0/16"),
		MaskIPv4:     24,
		MaskIPv6:     64,
	}
	for _, change := range changes {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s.dialOptions = r.dialOptions()
	return s
}

func (r *rig) ctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := r.Ctl(within(t), args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// client returns a client of etcd that may do everything.
func (r *rig) client(t *testing.T) *clientv3.Client {
	t.Helper()
	client, err := r.source(t, "root").connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

// selfOf is what a node says of itself: each name has an address and a key of its own.
func selfOf(name string) control.Self {
	sum := sha256.Sum256([]byte(name))
	return control.Self{
		Endpoint: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, sum[0], sum[1], sum[2]}), 9338),
		Key:      peer.Fingerprint(sum),
	}
}

// following is a Run that goes on, and what it has emitted.
type following struct {
	name   string
	source *Source
	reload chan struct{}
	stop   func()

	mu    sync.Mutex
	emits []emitted
	news  chan struct{} // closed and replaced after each emit
}

type emitted struct {
	state control.State
	err   error
	at    time.Time
}

// follow registers the source's node, and runs the source until the test ends.
func follow(t *testing.T, s *Source) *following {
	t.Helper()
	s.Register(selfOf(s.options.Node))
	return runOnly(t, s)
}

// runOnly is follow without the registration.
func runOnly(t *testing.T, s *Source) *following {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &following{name: s.options.Node, source: s, reload: make(chan struct{}, 1), news: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := s.Run(ctx, f.reload, func(state control.State, err error) {
			if ctx.Err() != nil {
				return
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			f.emits = append(f.emits, emitted{state, err, time.Now()})
			close(f.news)
			f.news = make(chan struct{})
		})
		if err != nil {
			t.Errorf("Run of %s: %v", f.name, err)
		}
	}()
	f.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(testnet.WaitLimit):
			t.Errorf("Run of %s does not end", f.name)
		}
	})
	t.Cleanup(f.stop)
	return f
}

// count is how much has been emitted until now.
func (f *following) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.emits)
}

// since returns what was emitted after the first n, and a channel that receives when there is more.
func (f *following) since(n int) ([]emitted, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.emits[n:]), f.news
}

// expect waits until something that fits is emitted, not counting the first n.
func (f *following) expect(t *testing.T, n int, what string, fits func(emitted) bool) emitted {
	t.Helper()
	limit := time.After(testnet.WaitLimit)
	for {
		emits, news := f.since(n)
		if i := slices.IndexFunc(emits, fits); i >= 0 {
			return emits[i]
		}
		select {
		case <-news:
		case <-limit:
			t.Fatalf("%s: %s was not emitted, but: %s", f.name, what, tellAll(emits))
		}
	}
}

func tellAll(emits []emitted) string {
	var texts []string
	for _, e := range emits {
		if e.err != nil {
			texts = append(texts, "error "+e.err.Error())
			continue
		}
		text := "state"
		for _, n := range e.state.Nodes {
			text += fmt.Sprint(" ", n.Name, n.PodCIDRs)
		}
		texts = append(texts, fmt.Sprint(text, "; refused: ", e.state.Refused))
	}
	return strings.Join(texts, "\n")
}

// expectNodes waits for a State with just these nodes, in this order.
func (f *following) expectNodes(t *testing.T, n int, names ...string) control.State {
	t.Helper()
	return f.expect(t, n, fmt.Sprint("a State with ", names), func(e emitted) bool {
		return e.err == nil && slices.Equal(namesOf(e.state), names)
	}).state
}

// expectRefusal waits for a State that has left a node out for a reason that contains a text.
func (f *following) expectRefusal(t *testing.T, n int, text string) {
	t.Helper()
	f.expect(t, n, fmt.Sprintf("a State that refuses with %q", text), func(e emitted) bool {
		return e.err == nil && e.state.Refused != nil && strings.Contains(e.state.Refused.Error(), text)
	})
}

// expectError waits for an error that contains a text.
func (f *following) expectError(t *testing.T, n int, text string) {
	t.Helper()
	f.expect(t, n, fmt.Sprintf("an error with %q", text), func(e emitted) bool {
		return e.err != nil && strings.Contains(e.err.Error(), text)
	})
}

func namesOf(state control.State) []string {
	var names []string
	for _, n := range state.Nodes {
		names = append(names, n.Name)
	}
	return names
}

// nodeOf returns the node of this name.
func nodeOf(t *testing.T, state control.State, name string) control.Node {
	t.Helper()
	for _, n := range state.Nodes {
		if n.Name == name {
			return n
		}
	}
	t.Fatalf("there is no node %s, but %v; refused: %v", name, namesOf(state), state.Refused)
	return control.Node{}
}

// expectPlan fails the test unless the State is right in the eyes of each of its nodes.
func expectPlan(t *testing.T, state control.State, name string, clusterCIDRs ...string) {
	t.Helper()
	self := selfOf(name)
	plan, err := control.NewPlan(state, control.Options{Node: name, ClusterCIDRs: prefixes(clusterCIDRs...), Key: self.Key})
	if err != nil || plan.Refused != nil {
		t.Errorf("%s: %v, refused: %v", name, err, plan.Refused)
	}
}

// last returns the State that was emitted last.
func (f *following) last(t *testing.T) control.State {
	t.Helper()
	emits, _ := f.since(0)
	for _, e := range slices.Backward(emits) {
		if e.err == nil {
			return e.state
		}
	}
	t.Fatalf("%s: no State was emitted", f.name)
	return control.State{}
}

// expectOnlySelf fails the test unless the Plan refuses all others.
func expectOnlySelf(t *testing.T, state control.State, name string) {
	t.Helper()
	plan, err := control.NewPlan(state, control.Options{Node: name, ClusterCIDRs: prefixes("10.244.0.0/16")})
	if err != nil || len(plan.Peers) != 0 || plan.Refused == nil {
		t.Errorf("%s: %v, %+v", name, err, plan)
	}
}

// expectKeys is for testnet.Wait: it fails unless the keys have these values.
func (r *rig) expectKeys(want map[string]string) func(context.Context) error {
	return func(ctx context.Context) error {
		for key, value := range want {
			got, err := r.Ctl(ctx, "get", "--print-value-only", key)
			if err != nil {
				return err
			}
			if strings.TrimSpace(got) != value {
				return fmt.Errorf("%s is %s, not %s", key, got, value)
			}
		}
		return nil
	}
}

// link sets the host's link up or down.
func (r *rig) link(t *testing.T, state string) {
	t.Helper()
	if _, err := r.host.Exec(t.Context(), "ip", "link", "set", "eth0", state); err != nil {
		t.Fatal(err)
	}
}
