package kubernetes

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
)

// fullNode is a Node as a kubelet writes it, and only, as far as it matters here.
func fullNode(name string) (full, little *core.Node) {
	full = kubeletNode(name, "192.168.77.1", "10.244.1.0/24")
	full.Annotations[annotationEndpoint] = "192.168.77.1:9338"
	full.ResourceVersion = "7"
	full.CreationTimestamp = meta.NewTime(time.Unix(1_700_000_000, 0).UTC())
	full.Status.Conditions = []core.NodeCondition{{Type: core.NodeReady, Status: core.ConditionTrue}, {Type: core.NodeNetworkUnavailable, Status: core.ConditionFalse}}
	little = full.DeepCopy()

	full.UID = "8a4b"
	full.Labels = map[string]string{"kubernetes.io/hostname": name}
	full.ManagedFields = []meta.ManagedFieldsEntry{{Manager: "kubelet", FieldsV1: meta.NewFieldsV1(strings.Repeat("x", 1000))}}
	full.Spec.PodCIDR, full.Spec.ProviderID = "10.244.1.0/24", "rack1/"+name
	full.Status.NodeInfo.KernelVersion = "6.12.0"
	for i := range 50 {
		full.Status.Images = append(full.Status.Images, core.ContainerImage{Names: []string{fmt.Sprintf("example.org/image-%d@sha256:%064d", i, i)}, SizeBytes: 1 << 20})
	}
	return full, little
}

// encoded is an object as an API server sends it.
func encoded(t testing.TB, list *core.NodeList) []byte {
	t.Helper()
	list.APIVersion, list.Kind = "v1", "NodeList"
	var b bytes.Buffer
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(list, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestOfANodeOnlyWhatMattersIsDecoded(t *testing.T) {
	full, want := fullNode("node1")
	message, err := full.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var got littleNode
	if err := got.Unmarshal(message); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, &got.Node); diff != "" {
		t.Errorf("decoded is (-want +got)\n%s", diff)
	}
}

func TestAListIsReadAsItWasSent(t *testing.T) {
	list, want := new(core.NodeList), new(core.NodeList)
	list.ResourceVersion, want.ResourceVersion = "12", "12"
	for _, name := range []string{"node1", "node2", "node3"} {
		full, little := fullNode(name)
		list.Items, want.Items = append(list.Items, *full), append(want.Items, *little)
	}
	got, err := readList(bytes.NewReader(encoded(t, list)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("it was read as (-want +got)\n%s", diff)
	}
}

// TestAListThatIsCutIsNoShorterList: an empty list would have every node withdrawn.
func TestAListThatIsCutIsNoShorterList(t *testing.T) {
	_, little := fullNode("node1")
	whole := encoded(t, &core.NodeList{Items: []core.Node{*little, *little}})
	// What an API server writes behind the list is of no interest.
	behind := len("\x1a\x00\x22\x00")
	for size := range len(whole) - behind {
		if list, err := readList(bytes.NewReader(whole[:size])); err == nil {
			t.Fatalf("%d of %d bytes were read as a list of %d Nodes", size, len(whole), len(list.Items))
		}
	}
	for _, other := range []string{"", `{"kind":"NodeList","items":[]}`, "<html>"} {
		if _, err := readList(strings.NewReader(other)); err == nil {
			t.Errorf("%q was read as a list", other)
		}
	}
}

// TestAListTakesNoMemoryForWhatIsNotKept: it takes less than a tenth of its size, under the race
// detector too.
func TestAListTakesNoMemoryForWhatIsNotKept(t *testing.T) {
	full, _ := fullNode("node1")
	full.Status.Images = slices.Repeat(full.Status.Images, 20)
	list := new(core.NodeList)
	for range 200 {
		list.Items = append(list.Items, *full)
	}
	message := encoded(t, list)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := readList(bytes.NewReader(message)); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > uint64(len(message))/10 {
		t.Errorf("%d bytes were allocated to read %d", allocated, len(message))
	}
}

// FuzzNode compares with the decoder of Kubernetes' own, whatever is decoded.
func FuzzNode(f *testing.F) {
	full, little := fullNode("node1")
	full.Status.Images = full.Status.Images[:1]
	for _, n := range []*core.Node{full, little, {}} {
		message, err := n.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(message)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		var all core.Node
		var little littleNode
		if all.Unmarshal(message) != nil || little.Unmarshal(message) != nil {
			return
		}
		var want core.Node
		want.Name, want.ResourceVersion = all.Name, all.ResourceVersion
		want.CreationTimestamp, want.Annotations = all.CreationTimestamp, all.Annotations
		want.Spec.PodCIDRs = all.Spec.PodCIDRs
		want.Status.Conditions, want.Status.Addresses = all.Status.Conditions, all.Status.Addresses
		if diff := cmp.Diff(want, little.Node); diff != "" {
			t.Errorf("decoded is (-want +got)\n%s", diff)
		}
	})
}

// FuzzList has any bytes read as a list.
func FuzzList(f *testing.F) {
	full, little := fullNode("node1")
	full.Status.Images = full.Status.Images[:1]
	f.Add(encoded(f, &core.NodeList{Items: []core.Node{*full, *little}}))
	f.Add(encoded(f, &core.NodeList{}))
	f.Fuzz(func(t *testing.T, message []byte) {
		list, err := readList(bytes.NewReader(message))
		if (list == nil) == (err == nil) {
			t.Errorf("the list is %v, and the error %v", list, err)
		}
	})
}
