package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	core "k8s.io/api/core/v1"
	events "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	clienttesting "k8s.io/client-go/testing"

	"weft/control"
	"weft/internal/family"
	"weft/peer"
)

var _ control.Registry = (*Source)(nil)

// The tests' time passes only while nothing else happens: see testing/synctest.

// soon is longer than anything takes, but for what is tried again.
const soon = 5 * time.Second

// running is a Source in its Run, and what it emits: names and endpoints, or an error, and
// whether that says that no pod may be added.
type running struct {
	*Source
	t       *testing.T
	api     *fake.Clientset
	emitted chan string
	reload  chan struct{}
	takes   atomic.Int64 // how long each State takes, in nanoseconds
}

// fakeAPI says of itself what the fake clientset does: that it can't stream a list.
type fakeAPI struct {
	typed.NodeInterface
	api *fake.Clientset
}

func (f fakeAPI) CreateEvent(ctx context.Context, text []byte) error {
	var event events.Event
	if err := json.Unmarshal(text, &event); err != nil {
		return err
	}
	_, err := f.api.EventsV1().Events(event.Namespace).Create(ctx, &event, meta.CreateOptions{})
	return err
}

func (fakeAPI) IsWatchListSemanticsUnSupported() bool { return true }

func start(t *testing.T, o Options, api *fake.Clientset) *running {
	t.Helper()
	o.Node = "node1"
	r := &running{Source: newSource(o, fakeAPI{api.CoreV1().Nodes(), api}), t: t, api: api, emitted: make(chan string, 100), reload: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		ended <- r.Run(ctx, r.reload, func(state control.State, err error) {
			var texts []string
			for _, n := range state.Nodes {
				texts = append(texts, n.Name+" "+n.Endpoint.String())
			}
			if err != nil {
				texts = []string{err.Error()}
			}
			time.Sleep(time.Duration(r.takes.Load()))
			if errors.Is(err, control.ErrNoPodCIDR) {
				texts = append(texts, "fenced")
			}
			r.emitted <- strings.Join(texts, ", ")
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	return r
}

func (r *running) expect(want string) {
	r.t.Helper()
	select {
	case got := <-r.emitted:
		if got != want {
			r.t.Fatalf("emitted\n%s\nwant\n%s", got, want)
		}
	case <-time.After(soon):
		r.t.Fatalf("nothing was emitted; want %s", want)
	}
}

func (r *running) expectNothing(during time.Duration) {
	r.t.Helper()
	select {
	case got := <-r.emitted:
		r.t.Fatalf("emitted %s", got)
	case <-time.After(during):
	}
}

// change changes a Node as another program would.
func (r *running) change(name string, change func(*core.Node)) {
	r.t.Helper()
	n := r.node(name)
	change(n)
	if _, err := r.api.CoreV1().Nodes().Update(r.t.Context(), n, meta.UpdateOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *running) node(name string) *core.Node {
	r.t.Helper()
	n, err := r.api.CoreV1().Nodes().Get(r.t.Context(), name, meta.GetOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// await waits until something is so.
func (r *running) await(what string, is func() bool) {
	r.t.Helper()
	for end := time.Now().Add(soon); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("%s: not so after %s", what, soon)
		}
	}
}

// kubeletNode is a Node as kubelet and the controller manager make it.
func kubeletNode(name, addr, podCIDR string) *core.Node {
	n := object(name, []string{podCIDR})
	n.Status.Addresses = []core.NodeAddress{{Type: core.NodeHostName, Address: name}, {Type: core.NodeInternalIP, Address: "fd00:77::1"}, {Type: core.NodeInternalIP, Address: addr}}
	return n
}

func self(endpoint string) control.Self {
	return control.Self{Endpoint: netip.MustParseAddrPort(endpoint), Key: peer.Fingerprint{1}}
}

// portOnly leaves the address to the Source.
var portOnly = control.Self{Endpoint: netip.AddrPortFrom(netip.Addr{}, 9338), Key: peer.Fingerprint{1}}

func TestANodeRegistersAndSeesTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Options{}, fake.NewClientset(kubeletNode("node1", "192.168.77.1", "10.244.1.0/24"),
			object("node2", []string{"10.244.2.0/24"}, annotationEndpoint, "192.168.77.2:9338"), object("node3", nil)))
		r.expectNothing(200 * time.Millisecond)
		r.Register(self("192.168.77.1:9338"))
		r.expect("node1 192.168.77.1:9338, node2 192.168.77.2:9338")
		r.change("node2", func(n *core.Node) { n.Annotations[annotationEndpoint] = "192.168.77.22:9338" })
		r.expect("node1 192.168.77.1:9338, node2 192.168.77.22:9338")
		r.change("node3", func(n *core.Node) { n.Annotations = map[string]string{annotationEndpoint: "192.168.77.3:9338"} })
		r.expect("node1 192.168.77.1:9338, node2 192.168.77.22:9338, node3 192.168.77.3:9338")
		if err := r.api.CoreV1().Nodes().Delete(t.Context(), "node2", meta.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		r.expect("node1 192.168.77.1:9338, node3 192.168.77.3:9338")
		r.change("node3", func(n *core.Node) { n.Labels = map[string]string{"a": "b"} })
		r.expectNothing(500 * time.Millisecond)
		r.reload <- struct{}{}
		r.expect("node1 192.168.77.1:9338, node3 192.168.77.3:9338")
	})
}

func TestNoStateHasAnOldEntryOfThisNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Options{}, fake.NewClientset(object("node1", []string{"10.244.1.0/24"}, annotationEndpoint, "192.168.77.9:1", "example.com/other", "kept")))
		r.Register(self("192.168.77.1:9338"))
		r.expect("node1 192.168.77.1:9338")
		if n := r.node("node1"); n.Annotations[annotationKey] != (peer.Fingerprint{1}).String() || n.Annotations["example.com/other"] != "kept" {
			t.Errorf("%v", n.Annotations)
		}
		r.change("node1", func(n *core.Node) { n.Annotations = nil })
		r.await("the annotations again", func() bool { return r.node("node1").Annotations[annotationEndpoint] != "" })
		r.expectNothing(soon)
		r.Register(control.Self{Endpoint: netip.MustParseAddrPort("192.168.77.7:9338")})
		r.expect("node1 192.168.77.7:9338")
	})
}

// TestANodeKeepsItsKey: a node's token alone is not enough to replace its key.
func TestANodeKeepsItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Options{}, fake.NewClientset(object("node1", []string{"10.244.1.0/24"}, annotationEndpoint, "192.168.77.1:9338", annotationKey, fingerprint)))
		r.Register(self("192.168.77.1:9338"))
		r.expect("the Node node1 has the key \"" + fingerprint + "\", and this node the key " + (peer.Fingerprint{1}).String() +
			"; if it was installed anew, or its key replaced on purpose, run: kubectl annotate node node1 weft.network/key-")
		if n := r.node("node1"); n.Annotations[annotationKey] != fingerprint {
			t.Errorf("%v", n.Annotations)
		}
		r.change("node1", func(n *core.Node) { delete(n.Annotations, annotationKey) })
		r.expect("node1 192.168.77.1:9338")
		if n := r.node("node1"); n.Annotations[annotationKey] != (peer.Fingerprint{1}).String() {
			t.Errorf("%v", n.Annotations)
		}
	})
}

func TestEndpointIsInternalIPOrOverride(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Options{Families: []family.Family{family.IPv4, family.IPv6}}, fake.NewClientset(kubeletNode("node1", "192.168.77.1", "10.244.1.0/24")))
		r.Register(portOnly)
		r.expect("node1 192.168.77.1:9338")
		r.change("node1", func(n *core.Node) { n.Status.Addresses[2].Address = "192.168.77.11" })
		r.expect("node1 192.168.77.11:9338")
		r.change("node1", func(n *core.Node) { n.Status.Addresses = n.Status.Addresses[:2] })
		r.expect("node1 [fd00:77::1]:9338")
		r.change("node1", func(n *core.Node) { n.Annotations[annotationOverride] = "203.0.113.1" })
		r.expect("node1 203.0.113.1:9338")
		r.change("node1", func(n *core.Node) { n.Annotations[annotationOverride] = "203.0.113.1:4000" })
		r.expect("node1 203.0.113.1:4000")
		r.change("node1", func(n *core.Node) { n.Annotations[annotationOverride] = "node1.example" })
		r.expect(`the Node node1: the annotation weft.network/override-endpoint: "node1.example" is not an IP address and port; write it like 192.168.77.1:9338 or [fd00:77::1]:9338`)
		r.change("node1", func(n *core.Node) { delete(n.Annotations, annotationOverride) })
		r.expect("node1 [fd00:77::1]:9338")
		r.change("node1", func(n *core.Node) { n.Status.Addresses = nil })
		r.expect("the Node node1: it has no InternalIP of IPv4 or IPv6; write the address under the configuration's key advertise, or as the annotation weft.network/override-endpoint")
	})
}

// TestANodeRegistersItsInternalIPs: those that are not the endpoint's, that weftd listens at, and
// that other nodes would accept; none without a key, as a node then proves none.
func TestANodeRegistersItsInternalIPs(t *testing.T) {
	for _, tt := range []struct {
		name     string
		families []family.Family
		one      bool
		self     control.Self
		want     string
	}{
		{"both families", nil, false, portOnly, "fd00:77::1,192.168.78.1"},
		{"one address", nil, true, portOnly, ""},
		{"IPv4", []family.Family{family.IPv4}, false, portOnly, "192.168.78.1"},
		{"IPv6", []family.Family{family.IPv6}, false, portOnly, ""},
		{"an endpoint elsewhere", nil, false, self("203.0.113.1:9338"), "fd00:77::1,192.168.77.1,192.168.78.1"},
		{"others", nil, false, control.Self{Endpoint: portOnly.Endpoint, Key: portOnly.Key, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, "192.0.2.1"},
		{"no key", nil, false, control.Self{Endpoint: portOnly.Endpoint}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				own := kubeletNode("node1", "192.168.77.1", "10.244.1.0/24")
				for _, internal := range []string{"192.168.78.1", "10.244.1.1", "::1", "fe80::1"} {
					own.Status.Addresses = append(own.Status.Addresses, core.NodeAddress{Type: core.NodeInternalIP, Address: internal})
				}
				own.Status.Addresses = append(own.Status.Addresses, core.NodeAddress{Type: core.NodeExternalIP, Address: "203.0.113.9"})
				r := start(t, Options{Families: tt.families, OneAddress: tt.one, ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}, fake.NewClientset(own))
				r.Register(tt.self)
				r.await("the annotations", func() bool { return r.node("node1").Annotations[annotationEndpoint] != "" })
				if got, has := r.node("node1").Annotations[annotationAddresses]; got != tt.want || has != (tt.want != "") {
					t.Errorf("%q, want %q", got, tt.want)
				}
			})
		})
	}
}

// TestAddressesAreNoConditionForAList: an admission policy of before knows no annotation of further
// addresses. It costs the node these, and nothing else.
func TestAddressesAreNoConditionForAList(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewClientset(kubeletNode("node1", "192.168.77.1", "10.244.1.0/24"))
		var allowed atomic.Bool
		api.PrependReactor("patch", "nodes", func(action clienttesting.Action) (bool, runtime.Object, error) {
			refused := !allowed.Load() && strings.Contains(string(action.(clienttesting.PatchAction).GetPatch()), annotationAddresses)
			return refused, nil, apierrors.NewForbidden(core.Resource("nodes"), "node1", errors.New("policy"))
		})
		r := start(t, Options{}, api)
		r.Register(portOnly)
		r.expect(`write this node's further addresses to the Node node1: nodes "node1" is forbidden: policy; apply deploy/kubernetes/rights of this version`)
		r.expect("node1 192.168.77.1:9338")
		r.await("the key", func() bool { return r.node("node1").Annotations[annotationKey] != "" })
		r.await("the condition", func() bool {
			c := r.node("node1").Status.Conditions
			return len(c) > 0 && c[0].Type == core.NodeNetworkUnavailable
		})
		allowed.Store(true)
		time.Sleep(2 * longestPause)
		if got := r.node("node1").Annotations[annotationAddresses]; got != "fd00:77::1" {
			t.Errorf("once they are allowed, the addresses are %q", got)
		}
	})
}

func TestANodeThatListensOnIPv6AloneIsReachedThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Options{Families: []family.Family{family.IPv6}}, fake.NewClientset(kubeletNode("node1", "192.168.77.1", "10.244.1.0/24")))
		r.Register(portOnly)
		r.expect("node1 [fd00:77::1]:9338")
	})
}

func TestMissingNodeIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Options{}, fake.NewClientset())
		r.Register(self("192.168.77.1:9338"))
		r.expect("no pod CIDR: there is no Node node1; kubelet makes it, or name this node differently under the configuration's key node, fenced")
		r.expectNothing(2500 * time.Millisecond)
		if _, err := r.api.CoreV1().Nodes().Create(t.Context(), kubeletNode("node1", "192.168.77.1", "10.244.1.0/24"), meta.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		r.expect("node1 192.168.77.1:9338")
		r.change("node1", func(n *core.Node) { n.Spec.PodCIDRs = nil })
		r.expect(noPodCIDRs)
		r.change("node1", func(n *core.Node) { n.Spec.PodCIDRs = []string{"10.244.7.0/24"} })
		r.expect("node1 192.168.77.1:9338")
	})
}

const noPodCIDRs = "no pod CIDR: the Node node1 has no spec.podCIDRs; start kube-controller-manager with --allocate-node-cidrs and --cluster-cidr, fenced"

// TestNoPodIsAddedWhileTheNodeHasNoPodCIDR: whatever was reported just before, and until there
// is a State again, which may be the last one.
func TestNoPodIsAddedWhileTheNodeHasNoPodCIDR(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Options{}, fake.NewClientset(kubeletNode("node1", "192.168.77.1", "10.244.1.0/24")))
		r.Register(self("192.168.77.1:9338"))
		r.expect("node1 192.168.77.1:9338")
		r.change("node1", func(n *core.Node) { n.Annotations[annotationOverride] = "node1.example" })
		r.expect(`the Node node1: the annotation weft.network/override-endpoint: "node1.example" is not an IP address and port; write it like 192.168.77.1:9338 or [fd00:77::1]:9338`)
		r.change("node1", func(n *core.Node) { n.Annotations, n.Spec.PodCIDRs = nil, nil })
		r.expect(noPodCIDRs)
		r.expectNothing(time.Hour)
		r.change("node1", func(n *core.Node) { n.Spec.PodCIDRs = []string{"10.244.1.0/24"} })
		r.expect("node1 192.168.77.1:9338")
		if err := r.api.CoreV1().Nodes().Delete(t.Context(), "node1", meta.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		r.expect("no pod CIDR: there is no Node node1; kubelet makes it, or name this node differently under the configuration's key node, fenced")
	})
}

func TestManyChangesAtOnceMakeFewStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Options{}, fake.NewClientset(kubeletNode("node1", "192.168.77.1", "10.244.1.0/24")))
		r.Register(self("192.168.77.1:9338"))
		r.expect("node1 192.168.77.1:9338")
		const many = 100
		for i := range many {
			n := object(fmt.Sprintf("other%d", i), []string{"10.244.2.0/24"}, annotationEndpoint, fmt.Sprintf("192.168.78.%d:9338", i))
			if _, err := r.api.CoreV1().Nodes().Create(t.Context(), n, meta.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(debounceInterval / 2)
		}
		time.Sleep(longestDebounce)
		most := int(many*debounceInterval/2/longestDebounce) + 1
		if states := len(r.emitted); states < most/2 || states > most {
			t.Errorf("%d States; want %d", states, most)
		}
		for len(r.emitted) > 1 {
			<-r.emitted
		}
		if last := <-r.emitted; strings.Count(last, ",") != many {
			t.Errorf("the last State: %s", last)
		}
	})
}

// One Node changes all the time: the States must not take all of this node's time.
func TestOneWriterDoesNotSetThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Options{}, fake.NewClientset(kubeletNode("node1", "192.168.77.1", "10.244.1.0/24"), object("node2", []string{"10.244.2.0/24"})))
		r.Register(self("192.168.77.1:9338"))
		r.expect("node1 192.168.77.1:9338")
		const took, during = 400 * time.Millisecond, 5 * time.Second
		r.takes.Store(int64(took))
		for i := range during / (debounceInterval / 2) {
			time.Sleep(debounceInterval / 2)
			r.change("node2", func(n *core.Node) {
				n.Annotations = map[string]string{annotationEndpoint: fmt.Sprintf("192.168.77.2:%d", i+1)}
			})
		}
		if n, most := len(r.emitted), int(during/(2*took))+1; n > most || n < most/2 {
			t.Errorf("%d States of %v each in %v; want %d at most", n, took, during, most)
		}
		r.takes.Store(0)
	})
}

// TestConditionIsOfThisNode: NetworkUnavailable is False only while this node forwards with
// the pod CIDRs that its Node has, whatever has become of the Node.
func TestConditionIsOfThisNode(t *testing.T) {
	cidrs := func(texts ...string) (all []netip.Prefix) {
		for _, text := range texts {
			all = append(all, netip.MustParsePrefix(text))
		}
		return all
	}
	for _, tt := range []struct {
		name     string
		was      core.ConditionStatus // "": there is no condition
		cidrs    []string             // the Node's
		forwards []netip.Prefix
		down     string
		want     string // status and reason; "": nothing is written
	}{
		{"the node starts for the first time", "", []string{"10.244.1.0/24"}, nil, "", "True WeftIsStarting"},
		{"the Node has no pod CIDR yet", "", nil, nil, "", "True WeftIsStarting"},
		{"weftd is restarted", core.ConditionFalse, []string{"10.244.1.0/24"}, nil, "", ""},
		{"a cloud waits for routes", core.ConditionTrue, []string{"10.244.1.0/24"}, nil, "", ""},
		{"the node forwards", core.ConditionTrue, []string{"10.244.1.0/24"}, cidrs("10.244.1.0/24"), "", "False WeftIsUp"},
		{"the node forwards, and has no condition", "", []string{"10.244.1.0/24"}, cidrs("10.244.1.0/24"), "", "False WeftIsUp"},
		{"the node forwards with two families", core.ConditionTrue, []string{"10.244.1.0/24", "fd00:244:1::/64"}, cidrs("fd00:244:1::/64", "10.244.1.0/24"), "", "False WeftIsUp"},
		{"the node forwards on", core.ConditionFalse, []string{"10.244.1.0/24"}, cidrs("10.244.1.0/24"), "", ""},
		{"the Node was made again with another pod CIDR", "", []string{"10.244.9.0/24"}, cidrs("10.244.1.0/24"), "", "True WeftIsStarting"},
		{"another pod CIDR in the same Node", core.ConditionFalse, []string{"10.244.9.0/24"}, cidrs("10.244.1.0/24"), "", "True WeftIsStarting"},
		{"a family was added to the Node", core.ConditionFalse, []string{"10.244.1.0/24", "fd00:244:1::/64"}, cidrs("10.244.1.0/24"), "", "True WeftIsStarting"},
		{"the Node was made again with the same pod CIDR", "", []string{"10.244.1.0/24"}, cidrs("10.244.1.0/24"), "", "False WeftIsUp"},
		{"pods have had no network for a while", core.ConditionFalse, []string{"10.244.1.0/24"}, cidrs("10.244.1.0/24"), "no TUN device", "True WeftIsDown"},
		{"and it goes on", core.ConditionTrue, []string{"10.244.1.0/24"}, nil, "no TUN device", ""},
		{"a pod CIDR that is none", "", []string{"x"}, cidrs("10.244.1.0/24"), "", "True WeftIsStarting"},
	} {
		own := object("node1", tt.cidrs)
		if tt.was != "" {
			own.Status.Conditions = []core.NodeCondition{{Type: core.NodeNetworkUnavailable, Status: tt.was}}
		}
		got := newCondition(own, control.Self{Forwards: tt.forwards, Down: tt.down})
		if text := strings.TrimSpace(string(got.status) + " " + got.reason); text != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, text, tt.want)
		}
	}
}

// TestConditionOfANewNode is written to the API server: True at first, and False when the
// node forwards; and the same when the Node was deleted and made again.
func TestConditionOfANewNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Options{}, fake.NewClientset(kubeletNode("node1", "192.168.77.1", "10.244.1.0/24")))
		condition := func(status core.ConditionStatus, reason string) func() bool {
			return func() bool {
				n, err := r.api.CoreV1().Nodes().Get(t.Context(), "node1", meta.GetOptions{})
				return err == nil && slices.ContainsFunc(n.Status.Conditions, func(c core.NodeCondition) bool {
					return c.Type == core.NodeNetworkUnavailable && c.Status == status && c.Reason == reason
				})
			}
		}
		r.Register(self("192.168.77.1:9338"))
		r.expect("node1 192.168.77.1:9338")
		r.await("True", condition(core.ConditionTrue, "WeftIsStarting"))
		forwards := self("192.168.77.1:9338")
		forwards.Forwards = []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}
		r.Register(forwards)
		r.await("False", condition(core.ConditionFalse, "WeftIsUp"))
		r.change("node1", func(n *core.Node) {
			n.Status.Conditions = []core.NodeCondition{{Type: core.NodeReady}, {Type: core.NodeNetworkUnavailable, Status: core.ConditionTrue}}
		})
		r.await("False again", condition(core.ConditionFalse, "WeftIsUp"))

		if err := r.api.CoreV1().Nodes().Delete(t.Context(), "node1", meta.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		r.expect("no pod CIDR: there is no Node node1; kubelet makes it, or name this node differently under the configuration's key node, fenced")
		if _, err := r.api.CoreV1().Nodes().Create(t.Context(), kubeletNode("node1", "192.168.77.1", "10.244.9.0/24"), meta.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		r.await("True with another pod CIDR", condition(core.ConditionTrue, "WeftIsStarting"))
		r.expect("node1 192.168.77.1:9338")
		forwards.Forwards = []netip.Prefix{netip.MustParsePrefix("10.244.9.0/24")}
		r.Register(forwards)
		r.await("False with another pod CIDR", condition(core.ConditionFalse, "WeftIsUp"))
	})
}

func TestFailedWriteIsReportedAndRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewClientset(kubeletNode("node1", "192.168.77.1", "10.244.1.0/24"))
		var refuse atomic.Bool
		refuse.Store(true)
		var tries atomic.Int32
		api.PrependReactor("patch", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
			tries.Add(1)
			return refuse.Load(), nil, errors.New("no")
		})
		r := start(t, Options{}, api)
		r.Register(self("192.168.77.1:9338"))
		r.expect("write this node's annotations to the Node node1: no")
		r.expectNothing(10 * time.Minute)
		if n := tries.Load(); n < 10 || n > 80 {
			t.Errorf("%d tries in 10 minutes", n)
		}
		refuse.Store(false)
		time.Sleep(2 * longestPause)
		r.expect("node1 192.168.77.1:9338")
	})
}

// TestRefusalIsReportedWithItsRemedy, and fences nothing: a refusal says nothing of the Node.
func TestRefusalIsReportedWithItsRemedy(t *testing.T) {
	const token = "Unauthorized: the token has expired, or its Node was deleted, even if there is one of the same name again; make a new one with: " +
		"kubectl --namespace weft create token weft --bound-object-kind Node --bound-object-name node1 --duration 8760h; " +
		"and write it where the kubeconfig /k has the old one: weftd then uses it by itself"
	const rights = "nodes is forbidden: no; apply deploy/kubernetes/rights, and name a kubeconfig with a token of weft's service account that is bound to this Node"
	for _, tt := range []struct {
		name, verb string
		err        error
		want       string
	}{
		{"no list for the token", "list", apierrors.NewUnauthorized("Unauthorized"), "the API server refuses this node: " + token},
		{"no list without the right", "list", apierrors.NewForbidden(core.Resource("nodes"), "", errors.New("no")), "the API server refuses this node: " + rights},
		{"nothing is written for the token", "patch", apierrors.NewUnauthorized("Unauthorized"), "write this node's annotations to the Node node1: " + token},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := fake.NewClientset(kubeletNode("node1", "192.168.77.1", "10.244.1.0/24"))
				api.PrependReactor(tt.verb, "nodes", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, tt.err })
				r := start(t, Options{Kubeconfig: "/k"}, api)
				r.Register(self("192.168.77.1:9338"))
				if apierrors.IsForbidden(tt.err) {
					r.expectNothing(rightsGrace)
				}
				r.expect(tt.want)
				r.expectNothing(time.Hour)
			})
		})
	}
}

func TestUnreachableServerIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewClientset(kubeletNode("node1", "192.168.77.1", "10.244.1.0/24"))
		var away atomic.Pointer[error]
		because := func(reason string) { err := errors.New(reason); away.Store(&err) }
		api.PrependReactor("list", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) {
			if err := away.Load(); err != nil {
				return true, nil, *err
			}
			return false, nil, nil
		})
		const repeatInterval = 30 * time.Second // control.Emitter's
		because("connection refused")
		r := start(t, Options{}, api)
		r.Register(self("192.168.77.1:9338"))
		r.expect("the API server is unreachable: connection refused")
		r.expectNothing(time.Hour)
		because("connection reset")
		time.Sleep(4 * time.Second)
		r.expect("the API server is unreachable: connection reset")
		because("no route to host")
		r.expectNothing(repeatInterval - 4*time.Second) // the last may have been emitted that long ago
		time.Sleep(repeatInterval + 4*time.Second)
		r.expect("the API server is unreachable: no route to host")
		r.reload <- struct{}{}
		r.expect("the API server is unreachable: no route to host")
		away.Store(nil)
		time.Sleep(4 * time.Second)
		r.expect("node1 192.168.77.1:9338")
	})
}

func TestFlannelsNodesFindThisOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Options{FlannelCompat: true, VNI: 1}, fake.NewClientset(kubeletNode("node1", "192.168.77.1", "10.244.1.0/24"), flannelObject("node2", "10.244.2.0/24")))
		r.Register(control.Self{Endpoint: netip.MustParseAddrPort("192.168.77.1:8472")})
		r.expect("node1 192.168.77.1:8472, node2 192.168.77.9:8472")
		want := map[string]string{
			"flannel.alpha.coreos.com/kube-subnet-manager": "true",
			"flannel.alpha.coreos.com/backend-type":        "vxlan",
			"flannel.alpha.coreos.com/backend-data":        `{"VNI":1,"VtepMAC":"` + peer.DeriveMAC("node1").String() + `"}`,
			"flannel.alpha.coreos.com/public-ip":           "192.168.77.1",
			annotationEndpoint:                             "192.168.77.1:8472",
		}
		n := r.node("node1")
		for key, value := range want {
			if n.Annotations[key] != value {
				t.Errorf("%s is %q; want %q", key, n.Annotations[key], value)
			}
		}
		if len(n.Annotations) != len(want) {
			t.Errorf("%v", n.Annotations)
		}
	})
}

func TestLoadWritesNothing(t *testing.T) {
	api := fake.NewClientset(kubeletNode("node1", "192.168.77.1", "10.244.1.0/24"), object("node2", []string{"10.244.2.0/24"}, annotationEndpoint, "192.168.77.2:9338"))
	s := newSource(Options{Node: "node1"}, fakeAPI{api.CoreV1().Nodes(), api})
	s.Register(self("192.168.77.1:9338"))
	state, err := s.Load(t.Context())
	if err != nil || len(state.Nodes) != 1 || state.Nodes[0].Name != "node2" {
		t.Errorf("%+v, %v", state, err)
	}
	for _, a := range api.Actions() {
		if a.GetVerb() != "list" {
			t.Errorf("it does: %s", a.GetVerb())
		}
	}
}
