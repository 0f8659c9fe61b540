package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	events "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clientgo "k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"weft/control"
	source "weft/control/kubernetes"
	"weft/internal/testnet"
	"weft/peer"
)

const boundToNone = ""

// nodeRig is an API server with weft's rights in it and some Nodes, node1 to nodeN.
type nodeRig struct {
	t      *testing.T
	server *testnet.APIServer
	admin  *Client
	url    string // the API server's, for the test's process

	mu    sync.Mutex
	cut   bool // the URL leads nowhere
	conns []net.Conn
}

func startNodeRig(t *testing.T, nodes int) *nodeRig {
	t.Helper()
	r := &nodeRig{t: t, server: startAPIServer(t)}
	r.admin = admin(t, r.server)
	r.url = r.forward()
	if err := r.admin.Apply(t.Context(), shippedManifests); err != nil {
		t.Fatal(err)
	}
	for i := range nodes {
		r.addNode(fmt.Sprintf("node%d", i+1), fmt.Sprintf("10.244.%d.0/24", i+1), fmt.Sprintf("192.168.77.%d", i+1))
	}
	// The API server takes notice of rights and policies after a while.
	stranger := r.client(boundToNone)
	err := Wait(t.Context(), "the policy to be active", func(ctx context.Context) error {
		_, err := stranger.CoreV1().Nodes().Patch(ctx, "node1", types.MergePatchType, []byte(`{"metadata":{"annotations":{"weft.network/endpoint":"x"}}}`), meta.PatchOptions{DryRun: []string{meta.DryRunAll}})
		if err != nil && strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'weft.network'") {
			return nil
		}
		return fmt.Errorf("the answer is: %w", err)
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// addNode makes a Node as kubelet and the controller manager do.
func (r *nodeRig) addNode(name, podCIDR, addr string) {
	r.t.Helper()
	n := &core.Node{ObjectMeta: meta.ObjectMeta{Name: name, Annotations: map[string]string{"example.com/kept": "yes"}}}
	n.Spec.PodCIDR, n.Spec.PodCIDRs = podCIDR, []string{podCIDR}
	n, err := r.admin.CoreV1().Nodes().Create(r.t.Context(), n, meta.CreateOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	n.Status.Addresses = []core.NodeAddress{{Type: core.NodeHostName, Address: name}, {Type: core.NodeInternalIP, Address: addr}}
	n.Status.Conditions = []core.NodeCondition{
		{Type: core.NodeReady, Status: core.ConditionTrue},
		{Type: core.NodeNetworkUnavailable, Status: core.ConditionTrue, Reason: "NoRouteCreated"},
	}
	if _, err := r.admin.CoreV1().Nodes().UpdateStatus(r.t.Context(), n, meta.UpdateOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *nodeRig) node(name string) *core.Node {
	r.t.Helper()
	n, err := r.admin.CoreV1().Nodes().Get(r.t.Context(), name, meta.GetOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// forward takes connections in the test's namespace to the API server, and returns the URL.
func (r *nodeRig) forward() string {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { l.Close() })
	ctx := context.WithoutCancel(r.t.Context())
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			if !r.admit(near) {
				continue
			}
			go func() {
				defer near.Close()
				far, err := r.server.Dial(ctx, "tcp", strings.TrimPrefix(r.server.URL(), "https://"))
				if err != nil {
					return
				}
				defer far.Close()
				go func() {
					defer near.Close()
					_, _ = io.Copy(near, far)
				}()
				_, _ = io.Copy(far, near)
			}()
		}
	}()
	return "https://" + l.Addr().String()
}

// admit takes a connection in unless the URL leads nowhere.
func (r *nodeRig) admit(conn net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut {
		conn.Close()
		return false
	}
	r.conns = append(r.conns, conn)
	return true
}

// setCut ends all connections by the URL and lets none begin, or lets them again.
func (r *nodeRig) setCut(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range r.conns {
		conn.Close()
	}
	r.cut, r.conns = cut, nil
}

// token returns one of weft's service account, bound to a Node or to nothing.
func (r *nodeRig) token(node string) string {
	r.t.Helper()
	token, err := r.admin.ServiceAccountToken(r.t.Context(), weftNamespace, weftAccount)
	if node != boundToNone {
		token, err = r.admin.NodeToken(r.t.Context(), weftNamespace, weftAccount, node)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return token
}

// client speaks with such a token.
func (r *nodeRig) client(node string) *Client {
	r.t.Helper()
	kubeconfig, err := r.server.TokenKubeconfig("weft-"+node, r.token(node))
	if err != nil {
		r.t.Fatal(err)
	}
	client, err := Connect(r.server, kubeconfig)
	if err != nil {
		r.t.Fatal(err)
	}
	return client
}

// kubeconfig writes one as administrators do that keep the token in a file of its own.
func (r *nodeRig) kubeconfig(node string) string {
	r.t.Helper()
	dir := r.t.TempDir()
	path := filepath.Join(dir, "kubeconfig")
	text := fmt.Sprintf(`
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %s, certificate-authority: %s}}]
users: [{name: u, user: {tokenFile: token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, r.url, r.server.CAFile())
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.WriteFile(filepath.Join(dir, "token"), []byte(r.token(node)), 0o600)); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// registered is a node's Source in its Run, and what it has emitted.
type registered struct {
	*source.Source
	t *testing.T

	mu     sync.Mutex
	states []string // names and endpoints
	errs   []string
}

// run runs a node's source until the test ends. The node registers with its key, and leaves
// its address to Kubernetes.
func (r *nodeRig) run(o source.Options, self control.Self) *registered {
	r.t.Helper()
	if o.Kubeconfig == "" {
		o.Kubeconfig = r.kubeconfig(o.Node)
	}
	s, err := source.New(o)
	if err != nil {
		r.t.Fatal(err)
	}
	s.Register(self)
	n := &registered{Source: s, t: r.t}
	ctx, cancel := context.WithCancel(r.t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx, nil, n.emit) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("%s: Run returned %v", o.Node, err)
		}
	})
	return n
}

func (n *registered) emit(state control.State, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.errs = append(n.errs, err.Error())
		return
	}
	var texts []string
	for _, node := range state.Nodes {
		texts = append(texts, node.Name+" "+node.Endpoint.String())
	}
	n.states = append(n.states, strings.Join(texts, ", "))
}

// emitted returns how many States there were, the last one, and all errors.
func (n *registered) emitted() (states int, last string, errs []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.states) > 0 {
		last = n.states[len(n.states)-1]
	}
	return len(n.states), last, n.errs
}

func (n *registered) await(want string) {
	n.t.Helper()
	err := Wait(n.t.Context(), "the State", func(context.Context) error {
		if _, last, errs := n.emitted(); last != want {
			return fmt.Errorf("it is %s, and not %s; errors: %q", last, want, errs)
		}
		return nil
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

func keyed(key byte) control.Self {
	return control.Self{Endpoint: netip.AddrPortFrom(netip.Addr{}, 9338), Key: peer.Fingerprint{key}}
}

func TestNodesRegisterInKubernetesAndSeeEachOther(t *testing.T) {
	r := startNodeRig(t, 3)
	one := r.run(source.Options{Node: "node1"}, keyed(1))
	one.await("node1 192.168.77.1:9338")
	two := r.run(source.Options{Node: "node2"}, keyed(2))
	const both = "node1 192.168.77.1:9338, node2 192.168.77.2:9338"
	one.await(both)
	two.await(both)

	t.Run("an override goes before the Node's address", func(t *testing.T) {
		patch := []byte(`{"metadata":{"annotations":{"weft.network/override-endpoint":"203.0.113.2:4000"}}}`)
		if _, err := r.admin.CoreV1().Nodes().Patch(t.Context(), "node2", types.MergePatchType, patch, meta.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		one.await("node1 192.168.77.1:9338, node2 203.0.113.2:4000")
	})
	t.Run("the condition NetworkUnavailable ends when the node is ready", func(t *testing.T) {
		ready := keyed(1)
		ready.Forwards = []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}
		one.Register(ready)
		n, err := r.admin.WaitNode(t.Context(), "node1", func(n *core.Node) error {
			for _, c := range n.Status.Conditions {
				if c.Type == core.NodeNetworkUnavailable && c.Status == core.ConditionFalse && c.Reason == "WeftIsUp" {
					return nil
				}
			}
			return fmt.Errorf("the conditions: %v", n.Status.Conditions)
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(n.Status.Conditions) != 2 || n.Annotations["example.com/kept"] != "yes" {
			t.Errorf("others' conditions or annotations are gone: %v, %v", n.Status.Conditions, n.Annotations)
		}
	})
	t.Run("stranded pods are an event that kubectl finds", func(t *testing.T) {
		stranded := keyed(1)
		stranded.Stranded = []string{"shop/a (10.244.7.2)"}
		one.Register(stranded)
		err := Wait(t.Context(), "the event", func(ctx context.Context) error {
			// As `kubectl describe node` asks.
			list, err := r.admin.CoreV1().Events("").List(ctx, meta.ListOptions{FieldSelector: "involvedObject.kind=Node,involvedObject.name=node1,involvedObject.uid=node1"})
			if err == nil && (len(list.Items) != 1 || list.Items[0].Reason != "StrandedPods" || !strings.HasSuffix(list.Items[0].Message, "delete them: shop/a (10.244.7.2)")) {
				return fmt.Errorf("the events are %+v", list.Items)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		if _, _, errs := one.emitted(); len(errs) > 0 {
			t.Errorf("errors: %q", errs)
		}
	})
	t.Run("a heartbeat of kubelet's makes no State", func(t *testing.T) {
		before, _, _ := one.emitted()
		n := r.node("node2")
		n.Status.Conditions[0].LastHeartbeatTime = meta.Now()
		if _, err := r.admin.CoreV1().Nodes().UpdateStatus(t.Context(), n, meta.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if after, _, _ := one.emitted(); after != before {
			t.Errorf("%d States more", after-before)
		}
	})
	t.Run("a Node that is made anew is written again", func(t *testing.T) {
		if err := r.admin.CoreV1().Nodes().Delete(t.Context(), "node1", meta.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		two.await("node2 203.0.113.2:4000")
		r.addNode("node1", "10.244.9.0/24", "192.168.77.9")
		// Its token is bound to the old one, and so is of no use any more.
		n := r.run(source.Options{Node: "node1"}, keyed(1))
		n.await("node2 203.0.113.2:4000, node1 192.168.77.9:9338")
	})
	t.Run("flannel's nodes are there if they are asked for", func(t *testing.T) {
		patch := []byte(`{"metadata":{"annotations":{"flannel.alpha.coreos.com/kube-subnet-manager":"true","flannel.alpha.coreos.com/backend-type":"vxlan",
			"flannel.alpha.coreos.com/backend-data":"{\"VNI\":1,\"VtepMAC\":\"aa:bb:cc:00:00:03\"}","flannel.alpha.coreos.com/public-ip":"192.168.77.3"}}}`)
		if _, err := r.admin.CoreV1().Nodes().Patch(t.Context(), "node3", types.MergePatchType, patch, meta.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		r.addNode("node4", "10.244.4.0/24", "192.168.77.4")
		self := control.Self{Endpoint: netip.MustParseAddrPort("192.168.77.4:8472")}
		r.run(source.Options{Node: "node4", FlannelCompat: true, VNI: 1}, self).await("node2 203.0.113.2:4000, node3 192.168.77.3:8472, node1 192.168.77.9:9338, node4 192.168.77.4:8472")
		if data := r.node("node4").Annotations["flannel.alpha.coreos.com/backend-data"]; data != `{"VNI":1,"VtepMAC":"`+peer.DeriveMAC("node4").String()+`"}` {
			t.Errorf("what flannel reads of node4: %q", data)
		}
	})
}

func TestANodesTokenChangesItsOwnEntryOnly(t *testing.T) {
	r := startNodeRig(t, 2)
	const policy = "ValidatingAdmissionPolicy 'weft.network' with binding 'weft.network' denied request: "
	const (
		merge     = types.MergePatchType
		strategic = types.StrategicMergePatchType
	)
	node1, stranger := r.client("node1"), r.client(boundToNone)
	annotation := func(key string) string { return fmt.Sprintf(`{"metadata":{"annotations":{%q:"x"}}}`, key) }
	for _, tt := range []struct {
		name        string
		client      *Client
		node        string
		patchType   types.PatchType
		patch       string
		subresource string
		want        string // "": allowed
	}{
		{"its endpoint", node1, "node1", merge, annotation("weft.network/endpoint"), "", ""},
		{"its key", node1, "node1", merge, annotation("weft.network/key"), "", ""},
		{"its key again", node1, "node1", merge, annotation("weft.network/key"), "", ""},
		{"another key", node1, "node1", merge, `{"metadata":{"annotations":{"weft.network/key":"y"}}}`, "", "a Node keeps its key"},
		{"another key, with the status", node1, "node1", merge, `{"metadata":{"annotations":{"weft.network/key":"y"}}}`, "status", "a Node keeps its key"},
		{"no key any more", node1, "node1", merge, `{"metadata":{"annotations":{"weft.network/key":null}}}`, "", "a Node keeps its key"},
		{"its entry, with the status", node1, "node1", merge, annotation("weft.network/endpoint"), "status", ""},
		{"flannel's annotation", node1, "node1", merge, annotation("flannel.alpha.coreos.com/public-ip"), "", ""},
		{"its condition", node1, "node1", strategic, `{"status":{"conditions":[{"type":"NetworkUnavailable","status":"False"}]}}`, "status", ""},
		{"another's endpoint", node1, "node2", merge, annotation("weft.network/endpoint"), "", "is not bound to this Node"},
		{"another's condition", node1, "node2", strategic, `{"status":{"conditions":[{"type":"NetworkUnavailable","status":"False"}]}}`, "status", "is not bound to this Node"},
		{"its override", node1, "node1", merge, annotation("weft.network/override-endpoint"), "", "no annotations but those that a node writes"},
		{"its vtep-mac", node1, "node1", merge, annotation("weft.network/vtep-mac"), "", "no annotations but those that a node writes"},
		{"another program's annotation", node1, "node1", merge, annotation("example.com/kept"), "", "no annotations but those that a node writes"},
		{"another program's annotation, with the status", node1, "node1", merge, annotation("example.com/kept"), "status", "no annotations but those that a node writes"},
		{"without another program's annotation", node1, "node1", merge, `{"metadata":{"annotations":{"example.com/kept":null}}}`, "", "no annotations but those that a node writes"},
		{"all annotations away", node1, "node1", merge, `{"metadata":{"annotations":null}}`, "", "no annotations but those that a node writes"},
		{"its labels", node1, "node1", merge, `{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}`, "", "nothing of a Node's metadata but annotations"},
		{"its labels, with the status", node1, "node1", merge, `{"metadata":{"labels":{"a":"b"}}}`, "status", "nothing of a Node's metadata but annotations"},
		{"its finalizers", node1, "node1", merge, `{"metadata":{"finalizers":["example.com/a"]}}`, "", "nothing of a Node's metadata but annotations"},
		{"its owner", node1, "node1", merge, `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"a","uid":"b"}]}}`, "", "nothing of a Node's metadata but annotations"},
		{"its taints", node1, "node1", merge, `{"spec":{"taints":[{"key":"a","effect":"NoSchedule"}]}}`, "", "nothing of a Node but annotations and a condition"},
		{"whether pods come", node1, "node1", merge, `{"spec":{"unschedulable":true}}`, "", "nothing of a Node but annotations and a condition"},
		{"its addresses", node1, "node1", strategic, `{"status":{"addresses":[{"type":"ExternalIP","address":"203.0.113.1"}]}}`, "status", "nothing of a Node's status but a condition"},
		{"its capacity", node1, "node1", merge, `{"status":{"capacity":{"example.com/a":"1"}}}`, "status", "nothing of a Node's status but a condition"},
		{"its condition Ready", node1, "node1", strategic, `{"status":{"conditions":[{"type":"Ready","status":"False"}]}}`, "status", "no condition but NetworkUnavailable"},
		{"another condition", node1, "node1", strategic, `{"status":{"conditions":[{"type":"Broken","status":"True"}]}}`, "status", "no condition but NetworkUnavailable"},
		{"all conditions away", node1, "node1", merge, `{"status":{"conditions":null}}`, "status", "no condition but NetworkUnavailable"},
		{"anything, by a token bound to nothing", stranger, "node1", merge, annotation("weft.network/endpoint"), "", "is not bound to this Node"},
		{"a condition, by a token bound to nothing", stranger, "node1", strategic, `{"status":{"conditions":[{"type":"NetworkUnavailable","status":"False"}]}}`, "status", "is not bound to this Node"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var subresources []string
			if tt.subresource != "" {
				subresources = append(subresources, tt.subresource)
			}
			before := r.node(tt.node)
			_, err := tt.client.CoreV1().Nodes().Patch(t.Context(), tt.node, tt.patchType, []byte(tt.patch), meta.PatchOptions{}, subresources...)
			if tt.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), policy) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the answer is: %v; want: %s…%s", err, policy, tt.want)
			}
			if after := r.node(tt.node); after.ResourceVersion != before.ResourceVersion {
				t.Error("the Node has changed")
			}
		})
	}
	if err := node1.CoreV1().Nodes().Delete(t.Context(), "node1", meta.DeleteOptions{}); err == nil {
		t.Error("the token deletes Nodes")
	}
	event := func(client *Client, namespace, kind, about string) error {
		_, err := client.EventsV1().Events(namespace).Create(t.Context(), &events.Event{
			ObjectMeta: meta.ObjectMeta{GenerateName: "test-", Namespace: namespace}, EventTime: meta.NowMicro(),
			ReportingController: "weft.network/weftd", ReportingInstance: "node1", Action: "a", Reason: "r", Type: core.EventTypeWarning,
			Regarding: core.ObjectReference{Kind: kind, Name: about},
		}, meta.CreateOptions{})
		return err
	}
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"an event of its Node":                     {event(node1, "default", "Node", "node1"), ""},
		"an event of another Node":                 {event(node1, "default", "Node", "node2"), "is not bound to the Node"},
		"an event of a pod":                        {event(node1, "default", "Pod", "node1"), "is not bound to the Node"},
		"an event by a token bound to nothing":     {event(stranger, "default", "Node", "node1"), "is not bound to the Node"},
		"an event of its Node in another place":    {event(node1, weftNamespace, "Node", "node1"), "forbidden"},
		"an administrator's event of another Node": {event(r.admin, "default", "Node", "node2"), ""},
	} {
		if tt.want == "" && tt.err != nil || tt.want != "" && (tt.err == nil || !strings.Contains(tt.err.Error(), tt.want)) {
			t.Errorf("%s: the answer is: %v; want: %s", name, tt.err, tt.want)
		}
	}
	if _, err := node1.CoreV1().Secrets(weftNamespace).List(t.Context(), meta.ListOptions{}); err == nil {
		t.Error("the token reads secrets")
	}
	_, err := r.admin.CoreV1().Nodes().Patch(t.Context(), "node1", merge, []byte(`{"metadata":{"labels":{"a":"b"}}}`), meta.PatchOptions{})
	if err != nil {
		t.Errorf("the policy binds others too: %v", err)
	}
}

func TestAnAPIServerThatCrashesIsAwaited(t *testing.T) {
	t.Parallel() // it waits most of the time
	r := startNodeRig(t, 2)
	one := r.run(source.Options{Node: "node1"}, keyed(1))
	two := r.run(source.Options{Node: "node2"}, keyed(2))
	const both = "node1 192.168.77.1:9338, node2 192.168.77.2:9338"
	one.await(both)
	two.await(both)
	before, _, errs := one.emitted()
	if len(errs) > 0 {
		t.Errorf("errors before anything has happened: %q", errs)
	}

	r.server.Kill()
	time.Sleep(30 * time.Second)
	states, _, errs := one.emitted()
	if states != before || len(errs) != 1 || !strings.HasPrefix(errs[0], "the API server is unreachable: ") {
		t.Errorf("without an API server: %d States and the errors %q", states-before, errs)
	}
	if err := r.server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	err := Wait(t.Context(), "a State again", func(context.Context) error {
		if states, _, errs := one.emitted(); states == before {
			return fmt.Errorf("none; errors: %q", errs)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("a State came %v after the API server was ready again", time.Since(started).Round(time.Millisecond))
	moved := keyed(2)
	moved.Endpoint = netip.MustParseAddrPort("192.168.77.22:9338")
	two.Register(moved)
	one.await("node1 192.168.77.1:9338, node2 192.168.77.22:9338")
	_, _, errs = one.emitted()
	if len(errs) > 2 || strings.Contains(fmt.Sprint(errs), control.ErrNoPodCIDR.Error()) || strings.Contains(fmt.Sprint(errs), "refuses") {
		t.Errorf("%d errors: %q", len(errs), errs)
	}
}

// TestAListThatWasCompactedIsReadAnew: a node that was cut off asks for changes since a
// version that the API server no longer has (410 Gone).
func TestAListThatWasCompactedIsReadAnew(t *testing.T) {
	r := startNodeRig(t, 3)
	one := r.run(source.Options{Node: "node1"}, keyed(1))
	two := r.run(source.Options{Node: "node2"}, keyed(2))
	one.await("node1 192.168.77.1:9338, node2 192.168.77.2:9338")
	two.await("node1 192.168.77.1:9338, node2 192.168.77.2:9338")

	r.setCut(true)
	before, err := r.admin.CoreV1().Nodes().List(t.Context(), meta.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, patch := range []struct{ node, annotations string }{
		{"node2", `{"weft.network/override-endpoint":"203.0.113.2:4000"}`},
		{"node3", `{"weft.network/endpoint":"192.168.77.3:9338"}`},
	} {
		_, err := r.admin.CoreV1().Nodes().Patch(t.Context(), patch.node, types.MergePatchType, []byte(`{"metadata":{"annotations":`+patch.annotations+`}}`), meta.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := r.admin.CoreV1().Nodes().Delete(t.Context(), "node2", meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	// A new one remembers no changes from before it began.
	r.server.Kill()
	if err := r.server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	w, err := r.admin.CoreV1().Nodes().Watch(t.Context(), meta.ListOptions{ResourceVersion: before.ResourceVersion})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if event := <-w.ResultChan(); !apierrors.IsResourceExpired(apierrors.FromObject(event.Object)) && !apierrors.IsGone(apierrors.FromObject(event.Object)) {
		t.Fatalf("the API server still reports changes since then: %v", event)
	}
	r.setCut(false)
	one.await("node1 192.168.77.1:9338, node3 192.168.77.3:9338")
}

// TestATokenThatIsReplacedIsUsed: kubelet replaces the tokens of pods before they expire. A
// token also becomes invalid when its Node is deleted, and the error says so.
func TestATokenThatIsReplacedIsUsed(t *testing.T) {
	t.Parallel() // it waits most of the time: the API server remembers tokens for ten seconds
	r := startNodeRig(t, 1)
	one := r.run(source.Options{Node: "node1"}, keyed(1))
	one.await("node1 192.168.77.1:9338")
	if err := r.admin.CoreV1().Nodes().Delete(t.Context(), "node1", meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.awaitRefusal(one.Kubeconfig)
	late := r.run(source.Options{Node: "node1", Kubeconfig: one.Kubeconfig}, keyed(1))
	err := Wait(t.Context(), "the remedy to be reported", func(context.Context) error {
		const want = "the API server refuses this node: Unauthorized: the token has expired, or its Node was deleted"
		if _, _, errs := late.emitted(); len(errs) != 1 || !strings.HasPrefix(errs[0], want) {
			return fmt.Errorf("errors: %q", errs)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r.addNode("node1", "10.244.9.0/24", "192.168.77.9")
	if err := os.WriteFile(filepath.Join(filepath.Dir(one.Kubeconfig), "token"), []byte(r.token("node1")), 0o600); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	one.await("node1 192.168.77.9:9338")
	late.await("node1 192.168.77.9:9338")
	t.Logf("the new token was used after %v", time.Since(started).Round(time.Millisecond))
}

// awaitRefusal waits until the API server knows a kubeconfig's token no more: it remembers
// for ten seconds that a token is good.
func (r *nodeRig) awaitRefusal(kubeconfig string) {
	r.t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		r.t.Fatal(err)
	}
	client, err := clientgo.NewForConfig(config)
	if err != nil {
		r.t.Fatal(err)
	}
	err = Wait(r.t.Context(), "the token to be refused", func(ctx context.Context) error {
		if _, err := client.CoreV1().Nodes().List(ctx, meta.ListOptions{}); !apierrors.IsUnauthorized(err) {
			return fmt.Errorf("the answer is: %w", err)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}
