package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft/internal/nodefile"
	"weft/internal/status"
	"weft/internal/testnet"
)

// startWeft starts nodes' weftds that find each other in an API server, and returns them with
// a pod on each. There is nothing here of Kubernetes but the API server.
func startWeft(t *testing.T, nodes int) (w *Weft, pods []*testnet.Pod) {
	t.Helper()
	n := newNet(t)
	w, err := NewWeft(t.Context(), n, testnet.ClusterOptions{Nodes: nodes, Sealed: true})
	check(t, err)
	server, err := n.AddAPIServer(t.Context(), w.Cluster.Segment, testnet.APIServerOptions{BinDir: kubernetesPrograms})
	if err != nil {
		t.Fatal(err)
	}
	check(t, w.Permit(t.Context(), server, shippedManifests))
	for i, node := range w.Cluster.Nodes() {
		makeNode(t, w, node, fmt.Sprintf("10.244.%d.0/24", i+1), fmt.Sprintf("fd00:244:0:%d::/64", i+1))
		check(t, w.GiveToken(t.Context(), node.Entry().Name))
	}
	if err := w.Cluster.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, node := range w.Cluster.Nodes() {
		awaitRegistered(t, w, node)
		pod, err := node.AddPod(t.Context(), fmt.Sprintf("pod%d", i+1))
		if err != nil {
			t.Fatal(err)
		}
		pods = append(pods, pod)
	}
	expectPings(t, pods)
	return w, pods
}

func TestThreeNodesFindEachOtherInAnAPIServer(t *testing.T) {
	w, pods := startWeft(t, 3)
	node3 := w.Node(3)
	for _, addr := range []string{"192.168.77.33/24", "192.168.77.34/24"} {
		if _, err := node3.Exec(t.Context(), "ip", "addr", "add", addr, "dev", testnet.UnderlayLink); err != nil {
			t.Fatal(err)
		}
	}
	// node3 sends from neither address. To where it sends from, the others would follow it
	// whatever Kubernetes says.
	for _, change := range []struct {
		name  string
		patch string
		sub   []string
		want  string
	}{
		{"another InternalIP", `{"status":{"addresses":[{"type":"InternalIP","address":"192.168.77.33"}]}}`, []string{"status"}, "192.168.77.33:9338"},
		{"an override", `{"metadata":{"annotations":{"weft.network/override-endpoint":"192.168.77.34"}}}`, nil, "192.168.77.34:9338"},
	} {
		t.Run(change.name, func(t *testing.T) {
			for _, node := range w.Cluster.Nodes()[:2] {
				before, err := status.Fetch(t.Context(), node.Socket())
				if err != nil || reaches("node3", change.want)(before) == nil {
					t.Fatalf("%s reaches it there already (%v)", node.Entry().Name, err)
				}
			}
			_, err := w.Admin.CoreV1().Nodes().Patch(t.Context(), "node3", types.MergePatchType, []byte(change.patch), meta.PatchOptions{}, change.sub...)
			if err != nil {
				t.Fatal(err)
			}
			acknowledged := time.Now()
			for _, node := range w.Cluster.Nodes()[:2] {
				awaitStatus(t, node, reaches("node3", change.want))
			}
			t.Logf("the others followed after %v", time.Since(acknowledged).Round(time.Millisecond))
			expectPings(t, pods)
		})
	}
}

// TestDeletedNodeAddsNoPods: it adds none until it has pod CIDRs again. The controller manager
// may have given its former ones to another node.
func TestDeletedNodeAddsNoPods(t *testing.T) {
	w, pods := startWeft(t, 2)
	node1 := w.Node(1)
	expectFenced := func(state string) {
		t.Helper()
		if pod, err := node1.AddPod(t.Context(), "early"); err == nil {
			t.Errorf("%s: a pod gets %v", state, pod.Addrs)
		}
		if _, err := node1.Get(t.Context(), "/readyz"); err == nil {
			t.Errorf("%s: it says that it is ready", state)
		}
	}
	if err := w.Admin.CoreV1().Nodes().Delete(t.Context(), "node1", meta.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitStatus(t, node1, func(r status.Report) error {
		if !strings.Contains(r.NotReady, "no pod CIDR: there is no Node node1") {
			return fmt.Errorf("ready is %t, and not %q", r.Ready, r.NotReady)
		}
		if _, err := os.Stat(filepath.Join(node1.RunDir(), nodefile.Name)); !errors.Is(err, fs.ErrNotExist) {
			return errors.New("node.json still has its pod CIDRs")
		}
		return nil
	})
	expectFenced("deleted")

	makeNode(t, w, node1)
	check(t, w.GiveToken(t.Context(), "node1"))
	time.Sleep(time.Second)
	expectFenced("without pod CIDRs")

	given := []byte(`{"spec":{"podCIDR":"10.244.9.0/24","podCIDRs":["10.244.9.0/24","fd00:244:0:9::/64"]}}`)
	if _, err := w.Admin.CoreV1().Nodes().Patch(t.Context(), "node1", types.MergePatchType, given, meta.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	var pod *testnet.Pod
	check(t, Wait(t.Context(), "node1 to be ready and to add a pod", func(ctx context.Context) (err error) {
		if _, err = node1.Get(ctx, "/readyz"); err == nil {
			pod, err = node1.AddPod(ctx, "late")
		}
		return err
	}), node1)
	if addr, ok := pod.Addr(false); !ok || !netip.MustParsePrefix("10.244.9.0/24").Contains(addr) {
		t.Errorf("the pod gets %v", pod.Addrs)
	}
	expectPings(t, []*testnet.Pod{pod, pods[1]})
}

// makeNode makes a Node as kubelet does and, if there are pod CIDRs, the controller manager.
func makeNode(t *testing.T, w *Weft, n *testnet.Node, podCIDRs ...string) {
	t.Helper()
	node := &core.Node{ObjectMeta: meta.ObjectMeta{Name: n.Entry().Name,
		// flanneld counts on it that there is one.
		Annotations: map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"}}}
	if len(podCIDRs) > 0 {
		node.Spec.PodCIDR, node.Spec.PodCIDRs = podCIDRs[0], podCIDRs
	}
	node, err := w.Admin.CoreV1().Nodes().Create(t.Context(), node, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	node.Status.Addresses = []core.NodeAddress{{Type: core.NodeInternalIP, Address: n.Entry().Endpoint.Addr().String()}}
	if _, err := w.Admin.CoreV1().Nodes().UpdateStatus(t.Context(), node, meta.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// reaches is a condition for awaitStatus.
func reaches(peer, endpoint string) func(status.Report) error {
	return func(r status.Report) error {
		for _, p := range r.Peers {
			if p.Name == peer && p.Endpoint.String() == endpoint {
				return nil
			}
		}
		return fmt.Errorf("the peers are %+v, want %s at %s", r.Peers, peer, endpoint)
	}
}

// expectPings has all pods ping each other by all their addresses.
func expectPings(t *testing.T, pods []*testnet.Pod) {
	t.Helper()
	for _, from := range pods {
		for _, to := range pods {
			for _, addr := range to.Addrs {
				err := waitALittle(t.Context(), from.PodName+" to reach "+to.PodName, func(ctx context.Context) error {
					_, err := from.Exec(ctx, "ping", "-c", "1", "-W", "1", addr.String())
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		}
	}
}
