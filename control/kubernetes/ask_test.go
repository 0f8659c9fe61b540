package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"weft/control"
)

// outage has an API server answer lists and watches with an error, and breaks its watches off.
type outage struct {
	api     *fake.Clientset
	reason  atomic.Pointer[error]
	asked   atomic.Int32
	lists   atomic.Int32
	watches chan *watch.FakeWatcher
}

func newOutage(objects ...runtime.Object) *outage {
	o := &outage{api: fake.NewClientset(objects...), watches: make(chan *watch.FakeWatcher, 100)}
	o.api.PrependReactor("list", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
		o.asked.Add(1)
		if reason := o.reason.Load(); reason != nil {
			return true, nil, *reason
		}
		o.lists.Add(1)
		return false, nil, nil
	})
	o.api.PrependWatchReactor("nodes", func(clienttesting.Action) (bool, watch.Interface, error) {
		o.asked.Add(1)
		if reason := o.reason.Load(); reason != nil {
			return true, nil, *reason
		}
		w := watch.NewFake()
		o.watches <- w
		return true, w, nil
	})
	return o
}

func (o *outage) because(reason error) {
	if reason == nil {
		o.reason.Store(nil)
		return
	}
	o.reason.Store(&reason)
}

var (
	errRefused  = errors.New("connection refused")
	noRights    = apierrors.NewForbidden(core.Resource("nodes"), "", errors.New("RBAC: not read yet"))
	unavailable = apierrors.NewServiceUnavailable("etcd is starting")
	internal    = apierrors.NewInternalError(errors.New("etcdserver: no leader"))
)

// TestCurrentSoonAfterAnOutage: however long the API server was unreachable, and whatever it
// answers while it starts, this node follows it again within 5 seconds, without a new list, and
// never says that it is refused. Meanwhile it asks now and then.
func TestCurrentSoonAfterAnOutage(t *testing.T) {
	for _, tt := range []struct {
		name  string
		away  []error       // one after the other
		each  time.Duration // how long each of them
		first string        // what is said; the rest says nothing
	}{
		{"a short one", []error{errRefused}, time.Second, "the API server is unreachable: connection refused"},
		{"a long one", []error{errRefused}, time.Hour, "the API server is unreachable: connection refused"},
		{"a load balancer without an API server", []error{errNoAnswer}, time.Minute, "the API server is unreachable: " + errNoAnswer.Error()},
		{"rights are read late", []error{errRefused, noRights}, 5 * time.Second, "the API server is unreachable: connection refused"},
		{"a long one, and rights are read late", []error{errRefused, errRefused, errRefused, noRights}, rightsGrace - time.Second, "the API server is unreachable: connection refused"},
		{"etcd starts after the API server", []error{errRefused, unavailable}, 8 * time.Second, "the API server is unreachable: connection refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOutage(kubeletNode("node1", "192.168.77.1", "10.244.1.0/24"))
				r := start(t, Options{}, o.api)
				r.Register(self("192.168.77.1:9338"))
				w := <-o.watches
				w.Modify(r.node("node1")) // or the fake's watch is one that reported nothing
				r.await("the annotations", func() bool { return r.node("node1").Annotations[annotationEndpoint] != "" })
				w.Modify(r.node("node1"))
				r.expect("node1 192.168.77.1:9338")
				lists := o.lists.Load()
				o.asked.Store(0)
				if at, reachable := r.LastContact(); !reachable || time.Since(at) > soon {
					t.Errorf("before: reachable %t, last contact at %s", reachable, at)
				}
				for i, reason := range tt.away {
					o.because(reason)
					if i == 0 {
						w.Stop()
					}
					time.Sleep(tt.each)
				}
				during := tt.each * time.Duration(len(tt.away))
				if asked, least, most := o.asked.Load(), int32(during/(2*time.Second)), int32(during*5/4/time.Second)+4; asked < least || asked > most {
					t.Errorf("asked %d times in %v; want %d to %d times", asked, during, least, most)
				}
				if at, reachable := r.LastContact(); reachable || time.Since(at) < during {
					t.Errorf("after %v: reachable %t, last contact at %s", during, reachable, at)
				}
				r.expect(tt.first)
				o.because(nil)
				select {
				case w = <-o.watches:
				case <-time.After(2 * time.Second):
					t.Fatal("no watch 2 s after the outage")
				}
				w.Modify(object("node2", []string{"10.244.2.0/24"}, annotationEndpoint, "192.168.77.2:9338"))
				for got := range r.emitted { // the same State again may come before
					if got == "node1 192.168.77.1:9338, node2 192.168.77.2:9338" {
						break
					}
					if got != "node1 192.168.77.1:9338" {
						t.Fatalf("emitted %s", got)
					}
				}
				if at, reachable := r.LastContact(); !reachable || time.Since(at) > soon {
					t.Errorf("afterwards: reachable %t, last contact at %s", reachable, at)
				}
				if again := o.lists.Load() - lists; again > 0 {
					t.Errorf("%d new lists, which a watch makes needless", again)
				}
			})
		})
	}
}

// TestAnAnswerIsNoOutage: what an API server answers to the question is not asked again and
// again, but left to the Reflector.
func TestAnAnswerIsNoOutage(t *testing.T) {
	tooLarge := apierrors.NewTimeoutError("Too large resource version", 1)
	tooLarge.ErrStatus.Details.Causes = []meta.StatusCause{{Type: meta.CauseTypeResourceVersionTooLarge}}
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{errRefused, true}, {fmt.Errorf("x: %w", errRefused), true}, {errNoAnswer, true}, {noRights, true}, {unavailable, true}, {internal, true},
		{apierrors.NewUnauthorized("x"), true}, {apierrors.NewTooManyRequestsError("x"), true}, {apierrors.NewTimeoutError("x", 1), true},
		{tooLarge, false}, {apierrors.NewResourceExpired("x"), false}, {apierrors.NewBadRequest("x"), false},
		{apierrors.NewInvalid(core.SchemeGroupVersion.WithKind("Node").GroupKind(), "x", nil), false},
		{apierrors.NewNotFound(core.Resource("nodes"), "x"), false}, {&apierrors.StatusError{}, false},
	} {
		if got := passes(tt.err); got != tt.want {
			t.Errorf("%v passes: %v", tt.err, got)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		r := run{Source: newSource(Options{}, nil), nodes: newNodes(Options{}, nil)}
		asked := 0
		if err := r.ask(t.Context(), func(nodeAPI) error { asked++; return internal }); !apierrors.IsInternalError(err) || asked != mostFailures {
			t.Errorf("%v after %d questions", err, asked)
		}
	})
}

// TestLargeClustersAskMoreRarely: all nodes together ask about a thousand times a second.
func TestLargeClustersAskMoreRarely(t *testing.T) {
	for nodes, want := range map[int]time.Duration{0: time.Second, 100: time.Second, 3000: 3 * time.Second, 5000: 5 * time.Second, 100_000: 10 * time.Second} {
		if got := control.ReconnectPause(nodes); got != want {
			t.Errorf("%d nodes: %v, want %v", nodes, got, want)
		}
	}
}

// TestANewTokenIsUsedAtOnce: the kubeconfig and the token's file are read again when the API
// server refuses the token, whichever of the two has changed, and never those of another cluster.
func TestANewTokenIsUsedAtOnce(t *testing.T) {
	dir := t.TempDir()
	kubeconfig := filepath.Join(dir, "kubeconfig")
	write := func(server, user string) {
		t.Helper()
		text := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q}}]\nusers: [{name: u, user: {%s}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n", server, user)
		if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	token := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "token"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	token("1")
	write("https://192.0.2.1", "token: a")
	s, err := New(Options{Kubeconfig: kubeconfig, Node: "node1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func()
		used   bool
	}{
		{"nothing", func() {}, false},
		{"another token in the kubeconfig", func() { write("https://192.0.2.1", "token: b") }, true},
		{"nothing more", func() {}, false},
		{"a token's file", func() { write("https://192.0.2.1", "tokenFile: token") }, true},
		{"another token in the file", func() { token("2") }, true},
		{"another cluster", func() { write("https://192.0.2.2", "token: c") }, false},
		{"a kubeconfig that is none", func() { write("\x00", "") }, false},
		{"the cluster again", func() { write("https://192.0.2.1", "token: d") }, true},
	} {
		before := s.currentAPI()
		tt.change()
		s.readCredentials()
		if used := s.currentAPI() != before; used != tt.used {
			t.Errorf("%s: other credentials are used: %v", tt.name, used)
		}
	}
}

// TestADeadConnectionIsNoticed: the kernel ends one that the API server does not answer on.
func TestADeadConnectionIsNoticed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := dialer().DialContext(context.Background(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for name, option := range map[string]struct{ level, number, want int }{
		"SO_KEEPALIVE":     {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		"TCP_KEEPIDLE":     {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 2},
		"TCP_KEEPINTVL":    {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1},
		"TCP_KEEPCNT":      {unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
		"TCP_USER_TIMEOUT": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 5000},
	} {
		var got int
		if failed := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), option.level, option.number) }); failed != nil || err != nil {
			t.Fatal(failed, err)
		}
		if got != option.want {
			t.Errorf("%s is %d, want %d", name, got, option.want)
		}
	}
}
