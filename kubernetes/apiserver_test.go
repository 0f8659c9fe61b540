package kubernetes

import (
	"context"
	"slices"
	"testing"
	"time"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"weft/internal/testnet"
)

func startAPIServer(t *testing.T) *testnet.APIServer {
	t.Helper()
	n := newNet(t)
	segment, err := n.AddSegment(t.Context(), "segment", testnet.Wire{})
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	server, err := n.AddAPIServer(t.Context(), segment, testnet.APIServerOptions{BinDir: kubernetesPrograms})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the API server was ready after %v", time.Since(started).Round(time.Millisecond))
	return server
}

func TestAPIServerKnowsWhoAsks(t *testing.T) {
	server := startAPIServer(t)
	client := admin(t, server)
	if version, err := client.Discovery().ServerVersion(); err != nil || version.GitVersion != "v1.34.0" {
		t.Errorf("the version: %v, %v", version, err)
	}
	stranger, err := ConnectWith(server, &rest.Config{TLSClientConfig: rest.TLSClientConfig{CAFile: server.CAFile()}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.CoreV1().Nodes().List(t.Context(), meta.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a client without credentials: %v", err)
	}

	account := &core.ServiceAccount{ObjectMeta: meta.ObjectMeta{Name: "weftd"}}
	if _, err := client.CoreV1().ServiceAccounts("kube-system").Create(t.Context(), account, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	token, err := client.ServiceAccountToken(t.Context(), "kube-system", "weftd")
	if err != nil {
		t.Fatal(err)
	}
	weftd := withToken(t, server, token)
	if _, err := weftd.CoreV1().Nodes().List(t.Context(), meta.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a service account that was given no right: %v", err)
	}
	if err := client.ApplyYAML(t.Context(), allowNodes); err != nil {
		t.Fatal(err)
	}
	err = Wait(t.Context(), "the right to count", func(ctx context.Context) error {
		_, err := weftd.CoreV1().Nodes().List(ctx, meta.ListOptions{})
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func withToken(t *testing.T, server *testnet.APIServer, token string) *Client {
	t.Helper()
	kubeconfig, err := server.TokenKubeconfig("weftd", token)
	if err != nil {
		t.Fatal(err)
	}
	client, err := Connect(server, kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

const allowNodes = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: weftd}
rules:
- {apiGroups: [""], resources: [nodes], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: weftd}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: weftd}
subjects:
- {kind: ServiceAccount, namespace: kube-system, name: weftd}
`

func TestNodesAndTheirTokensAreKnownAsTheirs(t *testing.T) {
	server := startAPIServer(t)
	kubeconfig, err := server.NodeKubeconfig("node1")
	if err != nil {
		t.Fatal(err)
	}
	node1, err := Connect(server, kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for name, allowed := range map[string]bool{"node1": true, "node2": false} {
		node := &core.Node{ObjectMeta: meta.ObjectMeta{Name: name}}
		_, err := node1.CoreV1().Nodes().Create(t.Context(), node, meta.CreateOptions{})
		if allowed && err != nil || !allowed && !apierrors.IsForbidden(err) {
			t.Errorf("node1 makes %s: %v", name, err)
		}
	}

	client := admin(t, server)
	account := &core.ServiceAccount{ObjectMeta: meta.ObjectMeta{Name: "weftd"}}
	if _, err := client.CoreV1().ServiceAccounts("kube-system").Create(t.Context(), account, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	token, err := client.NodeToken(t.Context(), "kube-system", "weftd", "node1")
	if err != nil {
		t.Fatal(err)
	}
	review := &authentication.SelfSubjectReview{}
	self, err := withToken(t, server, token).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), review, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if names := self.Status.UserInfo.Extra["authentication.kubernetes.io/node-name"]; !slices.Equal(names, []string{"node1"}) {
		t.Errorf("a token for node1 is one for %v", names)
	}
}

func TestAPIServerKeepsItsDataWhenItIsKilled(t *testing.T) {
	server := startAPIServer(t)
	client := admin(t, server)
	kept := &core.ConfigMap{ObjectMeta: meta.ObjectMeta{Name: "kept"}, Data: map[string]string{"a": "1"}}
	if _, err := client.CoreV1().ConfigMaps("default").Create(t.Context(), kept, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for how, end := range map[string]func() error{
		"killed":  func() error { server.Kill(); return nil },
		"stopped": func() error { return server.Stop(t.Context()) },
	} {
		if err := end(); err != nil {
			t.Error(err)
		}
		if _, err := client.CoreV1().ConfigMaps("default").Get(t.Context(), "kept", meta.GetOptions{}); err == nil {
			t.Errorf("it answers after it was %s", how)
		}
		started := time.Now()
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s, it was ready again after %v", how, time.Since(started).Round(time.Millisecond))
		got, err := client.CoreV1().ConfigMaps("default").Get(t.Context(), "kept", meta.GetOptions{})
		if err != nil || got.Data["a"] != "1" {
			t.Errorf("after it was %s: %v, %v", how, got, err)
		}
	}
}
