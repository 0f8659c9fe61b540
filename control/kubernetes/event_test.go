package kubernetes

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	core "k8s.io/api/core/v1"
	events "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// Stranded pods are an event of the Node, once for each change, however often the node registers
// and whatever else it has to write. An event that fails is tried again, unless it is refused.
func TestStrandedPodsAreAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewClientset(kubeletNode("node1", "192.168.77.1", "10.244.1.0/24"))
		var (
			mu      sync.Mutex
			failure error
			tries   int
		)
		api.PrependReactor("create", "events", func(clienttesting.Action) (bool, runtime.Object, error) {
			mu.Lock()
			defer mu.Unlock()
			tries++
			return failure != nil, nil, failure
		})
		// fail has events fail so from now on, and returns how many were tried until now.
		fail := func(err error) (tried int) {
			mu.Lock()
			defer mu.Unlock()
			tried, tries, failure = tries, 0, err
			return tried
		}
		r := start(t, Options{}, api)
		me := self("192.168.77.1:9338")
		notes := func() (notes []string) {
			list, err := api.EventsV1().Events(meta.NamespaceDefault).List(t.Context(), meta.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			slices.SortFunc(list.Items, func(a, b events.Event) int { return a.EventTime.Compare(b.EventTime.Time) })
			for _, e := range list.Items {
				if e.Type != core.EventTypeWarning || e.Reason != "StrandedPods" || e.Regarding.Kind != "Node" || e.Regarding.Name != "node1" {
					t.Errorf("the event %+v", e)
				}
				_, pods, _ := strings.Cut(e.Note, "delete them: ")
				notes = append(notes, pods)
			}
			return notes
		}
		register := func(pods ...string) {
			me.Stranded = pods
			r.Register(me)
			time.Sleep(time.Minute)
		}
		expect := func(want ...string) {
			t.Helper()
			if got := notes(); !slices.Equal(got, want) {
				t.Errorf("the events name %q, want %q", got, want)
			}
		}
		register()
		r.expect("node1 192.168.77.1:9338")
		expect()
		register("shop/a (10.244.7.2)")
		register("shop/a (10.244.7.2)")
		r.change("node1", func(n *core.Node) { n.Annotations = nil })
		time.Sleep(time.Minute)
		expect("shop/a (10.244.7.2)")
		fail(apierrors.NewInternalError(fmt.Errorf("not now")))
		register("shop/a (10.244.7.2)", "shop/b (10.244.7.3)")
		expect("shop/a (10.244.7.2)")
		fail(nil)
		time.Sleep(time.Minute)
		expect("shop/a (10.244.7.2)", "shop/a (10.244.7.2), shop/b (10.244.7.3)")
		register()
		register("shop/a (10.244.7.2)")
		expect("shop/a (10.244.7.2)", "shop/a (10.244.7.2), shop/b (10.244.7.3)", "shop/a (10.244.7.2)")

		fail(apierrors.NewForbidden(events.Resource("events"), "", nil))
		register("shop/c (10.244.7.4)")
		if n := fail(nil); n != 1 {
			t.Errorf("%d tries of what is refused", n)
		}
		r.expectNothing(soon) // nor is it anything about the list of nodes
	})
}

// An event's note has a bound, however many pods are stranded.
func TestManyStrandedPodsFitAnEvent(t *testing.T) {
	var pods []string
	for i := range 5000 {
		pods = append(pods, fmt.Sprintf("namespace/pod%d (10.244.7.2, fd00:244:7::2)", i))
	}
	for _, n := range []int{1, 2, 20, 21, 22, 5000} {
		note := strandedNote(pods[:n])
		named := strings.Count(note, "namespace/")
		if len(note) > mostNote || named == 0 || named < n && !strings.HasSuffix(note, fmt.Sprintf(" and %d more", n-named)) {
			t.Errorf("%d pods: %d bytes name %d: %s", n, len(note), named, note)
		}
	}
	if note := strandedNote([]string{strings.Repeat("x", 5000)}); len(note) > mostNote {
		t.Errorf("%d bytes", len(note))
	}
}
