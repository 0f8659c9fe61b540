package testnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
)

const (
	mostMembers = 5

	// etcdHealth is where a member reports its health, without TLS: within its namespace only.
	etcdHealth = "http://127.0.0.1:2381"
)

// EtcdOptions describe an etcd cluster.
type EtcdOptions struct {
	Members int // 1 to 5

	// TLS has clients speak TLS, and show a certificate of the cluster's CA. The
	// members speak to each other without.
	TLS bool

	// QuotaBytes is the size of the database above which etcd takes no more writes;
	// 0 means etcd's default.
	QuotaBytes int64
}

// Etcd is an etcd cluster. Its members are numbered from 1: member N runs in the
// namespace etcdN, at 192.168.77.(100+N). A number that no member has panics.
// Its methods may be called concurrently, except those that stop, start or cut off
// one and the same member.
type Etcd struct {
	options EtcdOptions
	dir     string
	ca      *authority // nil without TLS
	members []*etcdMember
}

type etcdMember struct {
	*Namespace
	*Service
	number  int
	addr    netip.Addr
	dir     string
	segment *Segment
	port    string // the segment's end of the member's cable
	cut     atomic.Bool
}

// AddEtcd starts a cluster on the segment, each member in a namespace of its own,
// and returns when it has a leader and every member serves. A Net has at most one.
// A Cluster on the same segment must have no more than 100 nodes.
func (n *Net) AddEtcd(ctx context.Context, segment *Segment, o EtcdOptions) (*Etcd, error) {
	e, err := n.addEtcd(ctx, segment, o)
	if err != nil {
		return nil, fmt.Errorf("add etcd: %w", err)
	}
	return e, nil
}

func (n *Net) addEtcd(ctx context.Context, segment *Segment, o EtcdOptions) (*Etcd, error) {
	if o.Members < 1 || o.Members > mostMembers {
		return nil, fmt.Errorf("%d members: want 1 to %d", o.Members, mostMembers)
	}
	e := &Etcd{options: o, dir: filepath.Join(n.Dir(), "etcd")}
	for number := 1; number <= o.Members; number++ {
		m, err := e.addMember(ctx, n, segment, number)
		if err != nil {
			return nil, err
		}
		e.members = append(e.members, m)
	}
	if o.TLS {
		if err := e.makeAuthority(); err != nil {
			return nil, err
		}
	}
	// All are launched before one is waited for: none serves without a quorum.
	for _, m := range e.members {
		if err := m.launch(); err != nil {
			return nil, fmt.Errorf("start %s: %w", m.title, err)
		}
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for _, m := range e.members {
		group.Go(func() error { return m.await(groupCtx) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	_, err := e.Leader(ctx)
	return e, err
}

func (e *Etcd) addMember(ctx context.Context, n *Net, segment *Segment, number int) (*etcdMember, error) {
	name := fmt.Sprintf("etcd%d", number)
	ns, err := n.AddNamespace(ctx, name)
	if err != nil {
		return nil, err
	}
	m := &etcdMember{
		Namespace: ns,
		number:    number,
		addr:      netip.AddrFrom4([4]byte{192, 168, 77, byte(100 + number)}),
		dir:       filepath.Join(e.dir, name),
		segment:   segment,
	}
	if err := os.MkdirAll(m.dir, 0o755); err != nil {
		return nil, err
	}
	m.Service = n.AddService(name, filepath.Join(m.dir, "etcd.log"),
		func(ctx context.Context) error { return e.serves(ctx, m) },
		func() (*exec.Cmd, error) { return m.Command(context.Background(), "etcd", e.arguments(m)...), nil })
	m.port, err = segment.attach(ctx, End{
		Namespace: ns, Link: UnderlayLink, Addrs: []netip.Prefix{netip.PrefixFrom(m.addr, 24)},
	})
	return m, err
}

func (e *Etcd) clientURL(m *etcdMember) string {
	scheme := "http"
	if e.options.TLS {
		scheme = "https"
	}
	return fmt.Sprintf("%s://%s:2379", scheme, m.addr)
}

func (m *etcdMember) peerURL() string { return fmt.Sprintf("http://%s:2380", m.addr) }
func (e *Etcd) arguments(m *etcdMember) []string {
	var cluster []string
	for _, other := range e.members {
		cluster = append(cluster, other.title+"="+other.peerURL())
	}
	args := []string{
		"--name=" + m.title,
		"--data-dir=" + filepath.Join(m.dir, "data"),
		// What a killed process wrote is in the page cache; no test takes the machine down.
		"--unsafe-no-fsync",
		"--listen-peer-urls=" + m.peerURL(),
		"--initial-advertise-peer-urls=" + m.peerURL(),
		"--listen-client-urls=" + e.clientURL(m),
		"--advertise-client-urls=" + e.clientURL(m),
		"--listen-metrics-urls=" + etcdHealth,
		"--initial-cluster=" + strings.Join(cluster, ","),
		"--initial-cluster-state=new",
		"--logger=zap", "--log-outputs=stderr",
	}
	if e.options.QuotaBytes != 0 {
		args = append(args, "--quota-backend-bytes="+strconv.FormatInt(e.options.QuotaBytes, 10))
	}
	if e.options.TLS {
		cert, key := e.ca.files(serverName)
		args = append(args, "--client-cert-auth",
			"--trusted-ca-file="+e.ca.certFile(), "--cert-file="+cert, "--key-file="+key)
	}
	return args
}

// Endpoints are the URLs of the members for clients, in the order of their numbers.
func (e *Etcd) Endpoints() []string {
	var urls []string
	for _, m := range e.members {
		urls = append(urls, e.clientURL(m))
	}
	return urls
}

// Control is what a node's weft.yaml says under control to register in this cluster. With
// TLS it shows a certificate for the user of this name.
func (e *Etcd) Control(user string) (map[string]any, error) {
	settings := map[string]any{"endpoints": e.Endpoints()}
	if e.options.TLS {
		cert, key, err := e.ClientCert(user)
		if err != nil {
			return nil, err
		}
		settings["caFile"], settings["certFile"], settings["keyFile"] = e.CAFile(), cert, key
	}
	return map[string]any{"etcd": settings}, nil
}

// MustControl is Control for where no error can be returned, such as ClusterOptions.Configure.
func (e *Etcd) MustControl(user string) map[string]any {
	control, err := e.Control(user)
	if err != nil {
		panic(err)
	}
	return control
}

// Ctl runs etcdctl with all endpoints and returns its standard output. With TLS it
// shows a certificate for the user root.
func (e *Etcd) Ctl(ctx context.Context, args ...string) (string, error) {
	// A member that is cut off would see itself alone.
	from := e.members[0]
	for _, m := range e.members {
		if m.reachable() {
			from = m
			break
		}
	}
	return e.ctl(ctx, from, e.Endpoints(), args)
}

// CtlAt is Ctl within the namespace of one member and with its endpoint alone, which
// it reaches even when the member is partitioned.
func (e *Etcd) CtlAt(ctx context.Context, member int, args ...string) (string, error) {
	m := e.members[member-1]
	return e.ctl(ctx, m, []string{e.clientURL(m)}, args)
}

func (e *Etcd) ctl(ctx context.Context, from *etcdMember, endpoints, args []string) (string, error) {
	all := []string{"ETCDCTL_API=3", "etcdctl", "--endpoints=" + strings.Join(endpoints, ",")}
	if e.options.TLS {
		cert, key, err := e.ClientCert("root")
		if err != nil {
			return "", err
		}
		all = append(all, "--cacert="+e.CAFile(), "--cert="+cert, "--key="+key)
	}
	return from.Exec(ctx, "env", append(all, args...)...)
}

// Compact forgets all revisions but the current one. It returns when one member has
// done so; the others follow.
func (e *Etcd) Compact(ctx context.Context) error {
	out, err := e.Ctl(ctx, "get", "any", "--write-out=json")
	if err != nil {
		return fmt.Errorf("ask etcd for its revision: %w", err)
	}
	var answer struct {
		Header struct{ Revision int64 }
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		return fmt.Errorf("read etcd's revision: %w", err)
	}
	_, err = e.Ctl(ctx, "compact", strconv.FormatInt(answer.Header.Revision, 10))
	if err != nil && !strings.Contains(err.Error(), "required revision has been compacted") {
		return fmt.Errorf("compact etcd: %w", err)
	}
	return nil
}

// Leader returns the number of the member that leads, as soon as there is one among
// those that run and are not partitioned. Without a deadline in ctx it waits for 10 s.
func (e *Etcd) Leader(ctx context.Context) (leader int, err error) {
	err = Wait(ctx, "etcd to have a leader", func(ctx context.Context) (err error) {
		leader, err = e.findLeader(ctx)
		return err
	})
	return leader, err
}

func (e *Etcd) findLeader(ctx context.Context) (int, error) {
	var leaders []int
	var errs []error
	for _, m := range e.members {
		if !m.reachable() {
			continue
		}
		metrics, err := m.get(ctx, etcdHealth, "/metrics")
		if err != nil {
			errs = append(errs, fmt.Errorf("ask %s: %w", m.title, err))
		}
		if strings.Contains(metrics, "\netcd_server_is_leader 1\n") {
			leaders = append(leaders, m.number)
		}
	}
	// A leader that was cut off for a moment steps down when it hears of the next.
	if len(leaders) != 1 {
		return 0, errors.Join(append(errs, fmt.Errorf("members that say they lead: %v", leaders))...)
	}
	return leaders[0], nil
}

// Kill ends a member as a crash would, and returns when it is gone.
func (e *Etcd) Kill(member int) { e.members[member-1].Kill() }

// Start starts a killed member again, with its data. It returns when the member
// serves, or, if there is no quorum for that even with it, when it runs.
func (e *Etcd) Start(ctx context.Context, member int) error { return e.members[member-1].Start(ctx) }

// serves fails unless the member has a leader and its database can be read; or, without a
// quorum, unless it runs.
func (e *Etcd) serves(ctx context.Context, m *etcdMember) error {
	reachable := 0
	for _, other := range e.members {
		if other.reachable() {
			reachable++
		}
	}
	path := "/metrics"
	if m.reachable() && reachable > len(e.members)/2 {
		path = "/health"
	}
	_, err := m.get(ctx, etcdHealth, path)
	return err
}

// reachable says whether the member runs and others reach it.
func (m *etcdMember) reachable() bool { return m.running() != nil && !m.cut.Load() }

// Partition cuts a member off from the other members and the clients: what they send
// to each other is lost in silence.
func (e *Etcd) Partition(_ context.Context, member int) error {
	// The segment's end, because without its own the member would have no route, and
	// know at once.
	return e.members[member-1].setCut(true, (*netlink.Handle).LinkSetDown)
}

// Heal undoes Partition, and returns when the member's link carries packets again.
func (e *Etcd) Heal(ctx context.Context, member int) error {
	m := e.members[member-1]
	if err := m.setCut(false, (*netlink.Handle).LinkSetUp); err != nil {
		return err
	}
	return End{Namespace: m.Namespace, Link: UnderlayLink}.waitUp(ctx)
}

func (m *etcdMember) setCut(cut bool, set func(*netlink.Handle, netlink.Link) error) error {
	if err := m.segment.withLink(m.port, set); err != nil {
		return err
	}
	m.cut.Store(cut)
	return nil
}
