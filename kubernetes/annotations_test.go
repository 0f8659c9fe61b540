package kubernetes

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft/internal/testnet"
)

// as is a client with a kubeconfig of the server's.
func as(t *testing.T, server *testnet.APIServer, kubeconfig string, err error) *Client {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	client, err := Connect(server, kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// user is a client of a user with cluster roles.
func (r *nodeRig) user(name string, roles ...string) *Client {
	r.t.Helper()
	for _, role := range roles {
		_, err := r.admin.RbacV1().ClusterRoleBindings().Create(r.t.Context(), &rbac.ClusterRoleBinding{
			ObjectMeta: meta.ObjectMeta{Name: name + "-" + role},
			RoleRef:    rbac.RoleRef{APIGroup: rbac.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbac.Subject{{APIGroup: rbac.GroupName, Kind: rbac.UserKind, Name: name}},
		}, meta.CreateOptions{})
		if err != nil {
			r.t.Fatal(err)
		}
	}
	kubeconfig, err := r.server.Kubeconfig(name)
	return as(r.t, r.server, kubeconfig, err)
}

const nodeWriter = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: node-writer}
rules:
- {apiGroups: [""], resources: [nodes, nodes/status], verbs: [get, list, create, update, patch]}
`

// TestWhoChangesWeftsAnnotations: users that may patch Nodes can change no annotation of
// weft's in any way, and everything else as before. Administrators of weft can.
func TestWhoChangesWeftsAnnotations(t *testing.T) {
	r := startNodeRig(t, 2)
	if err := r.admin.ApplyYAML(t.Context(), nodeWriter); err != nil {
		t.Fatal(err)
	}
	writer, weftAdmin := r.user("writer", "node-writer"), r.user("weft-admin", "node-writer", "weft-administrator")
	kubeconfig, err := r.server.NodeKubeconfig("node1")
	kubelet1 := as(t, r.server, kubeconfig, err)
	kubeconfig, err = r.server.NodeKubeconfig("node9")
	kubelet9 := as(t, r.server, kubeconfig, err)
	if _, err := r.admin.CoreV1().Nodes().Patch(t.Context(), "node1", types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"weft.network/endpoint":"192.168.77.1:9338","weft.network/key":"aa"}}}`), meta.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	// node2 has no annotations at all, and so not even the field.
	if _, err := r.admin.CoreV1().Nodes().Patch(t.Context(), "node2", types.MergePatchType, []byte(`{"metadata":{"annotations":null}}`), meta.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	dryRun := meta.PatchOptions{DryRun: []string{meta.DryRunAll}}
	patch := func(client *Client, node, text string, subresources ...string) error {
		_, err := client.CoreV1().Nodes().Patch(t.Context(), node, types.MergePatchType, []byte(text), dryRun, subresources...)
		return err
	}
	const denied = "only weftd and administrators of weft may change the annotations weft.network/*"
	err = Wait(t.Context(), "the policy and the rights to count", func(context.Context) error {
		for _, answer := range []error{
			patch(weftAdmin, "node1", `{"metadata":{"annotations":{"weft.network/key":"bb"}}}`),
			patch(writer, "node1", `{"metadata":{"labels":{"a":"b"}}}`),
		} {
			if answer != nil {
				return answer
			}
		}
		if answer := patch(writer, "node1", `{"metadata":{"annotations":{"weft.network/key":"bb"}}}`); answer == nil || !strings.Contains(answer.Error(), denied) {
			return fmt.Errorf("the answer is %w", answer)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	// More than any Node has; the API server itself takes long for as many as it would store.
	many := make(map[string]string)
	for i := range 3_000 {
		many[strconv.FormatInt(int64(36*36*36+i), 36)] = ""
	}
	node := func(name string, annotations map[string]string) *core.Node {
		return &core.Node{ObjectMeta: meta.ObjectMeta{Name: name, Annotations: annotations}}
	}
	create := func(client *Client, n *core.Node) error {
		_, err := client.CoreV1().Nodes().Create(t.Context(), n, meta.CreateOptions{DryRun: []string{meta.DryRunAll}})
		return err
	}
	update := func(client *Client, name string, change func(n *core.Node)) error {
		n := r.node(name)
		change(n)
		_, err := client.CoreV1().Nodes().Update(t.Context(), n, meta.UpdateOptions{DryRun: []string{meta.DryRunAll}})
		return err
	}
	heartbeat := func(client *Client, name string) error {
		n := r.node(name)
		n.Status.Conditions = append(n.Status.Conditions, core.NodeCondition{Type: "DiskPressure", Status: core.ConditionFalse})
		_, err := client.CoreV1().Nodes().UpdateStatus(t.Context(), n, meta.UpdateOptions{DryRun: []string{meta.DryRunAll}})
		return err
	}
	const weftKey, other = `{"metadata":{"annotations":{"weft.network/key":"bb"}}}`, `{"metadata":{"annotations":{"example.com/a":"b"}}}`
	for _, tt := range []struct {
		name    string
		answer  error
		allowed bool
	}{
		{"a key is replaced", patch(writer, "node1", weftKey), false},
		{"a key is replaced with the status", patch(writer, "node1", weftKey, "status"), false},
		{"a key is given to a Node without annotations", patch(writer, "node2", weftKey), false},
		{"an endpoint is given to a Node without annotations, with the status", patch(writer, "node2", `{"metadata":{"annotations":{"weft.network/endpoint":"x"}}}`, "status"), false},
		{"a key is taken away", patch(writer, "node1", `{"metadata":{"annotations":{"weft.network/key":null}}}`), false},
		{"all annotations are taken away", patch(writer, "node1", `{"metadata":{"annotations":null}}`), false},
		{"a key is replaced by what is empty", patch(writer, "node1", `{"metadata":{"annotations":{"weft.network/key":""}}}`), false},
		{"an administrator's annotation", patch(writer, "node1", `{"metadata":{"annotations":{"weft.network/override-endpoint":"1.2.3.4"}}}`), false},
		{"an annotation that weft does not know yet", patch(writer, "node1", `{"metadata":{"annotations":{"weft.network/later":"x"}}}`), false},
		{"the whole Node is written", update(writer, "node1", func(n *core.Node) { n.Annotations["weft.network/endpoint"] = "x" }), false},
		{"the whole Node is written without annotations", update(writer, "node1", func(n *core.Node) { n.Annotations = nil }), false},
		{"a Node is made with a key", create(writer, node("node8", map[string]string{"weft.network/key": "x"})), false},
		{"kubelet makes its Node with a key", create(kubelet9, node("node9", map[string]string{"weft.network/key": "x"})), false},
		{"kubelet replaces its own Node's key", patch(kubelet1, "node1", weftKey), false},

		{"another's annotation", patch(writer, "node1", other), true},
		{"another's annotation, of a Node without any", patch(writer, "node2", other), true},
		{"the same key again", patch(writer, "node1", `{"metadata":{"annotations":{"weft.network/key":"aa","a":"b"}}}`), true},
		{"a label of a Node without annotations", patch(writer, "node2", `{"metadata":{"labels":{"a":"b"}}}`), true},
		{"a taint", patch(writer, "node1", `{"spec":{"taints":[{"key":"a","effect":"NoSchedule"}]}}`), true},
		{"a Node is made without annotations", create(writer, node("node8", nil)), true},
		{"a Node is made with other annotations", create(writer, node("node8", map[string]string{"a": "b"})), true},
		{"a Node is made with many annotations", create(writer, node("node8", many)), true},
		{"kubelet makes its Node", create(kubelet9, node("node9", nil)), true},
		{"kubelet makes its Node with annotations", create(kubelet9, node("node9", map[string]string{"volumes.kubernetes.io/controller-managed-attach-detach": "true"})), true},
		{"a kubelet's heartbeat", heartbeat(kubelet1, "node1"), true},
		{"a heartbeat for a Node without annotations", heartbeat(writer, "node2"), true},
		{"an administrator of weft replaces a key", patch(weftAdmin, "node1", weftKey), true},
		{"an administrator of weft takes it away", patch(weftAdmin, "node1", `{"metadata":{"annotations":{"weft.network/key":null}}}`), true},
		{"cluster-admin replaces a key", patch(r.admin, "node1", weftKey), true},
	} {
		if tt.allowed && tt.answer != nil {
			t.Errorf("%s: refused: %v", tt.name, tt.answer)
		}
		if !tt.allowed && (tt.answer == nil || !strings.Contains(tt.answer.Error(), denied)) {
			t.Errorf("%s: the answer is: %v", tt.name, tt.answer)
		}
	}

	// A user that may patch Nodes gives one many annotations.
	n := r.node("node1")
	for key := range many {
		n.Annotations[key] = ""
	}
	if _, err := r.admin.CoreV1().Nodes().Update(t.Context(), n, meta.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := heartbeat(kubelet1, "node1"); err != nil {
		t.Errorf("a kubelet's heartbeat for a Node with %d annotations: %v", len(many), err)
	}
	if err := patch(kubelet1, "node1", other); err != nil {
		t.Errorf("another's annotation of a Node with %d annotations: %v", len(many), err)
	}
	if err := patch(writer, "node1", weftKey); err == nil {
		t.Error("a key of a Node with many annotations is replaced")
	}
}
