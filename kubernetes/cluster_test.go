package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/internal/testnet"
)

func startKubernetes(t *testing.T) *testnet.Kubernetes {
	t.Helper()
	n := newNet(t)
	cluster, err := n.NewCluster(t.Context(), testnet.ClusterOptions{Nodes: 2})
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	k, err := n.NewKubernetes(t.Context(), cluster, testnet.APIServerOptions{BinDir: kubernetesPrograms})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("all programs ran after %v", time.Since(started).Round(time.Millisecond))
	return k
}

// This proves the rig: the pod network is a stand-in that has nothing of weft.
func TestRigRunsPodsAndAService(t *testing.T) {
	k := startKubernetes(t)
	client := admin(t, k.APIServer)
	podCIDRs := make(map[string][]netip.Prefix)
	for _, n := range k.Nodes {
		node, err := client.WaitNode(t.Context(), n.NodeName(), func(node *core.Node) error {
			if len(node.Spec.PodCIDRs) != 2 {
				return fmt.Errorf("its pod CIDRs are %v", node.Spec.PodCIDRs)
			}
			if err := NodeReady(node); err == nil || !strings.Contains(err.Error(), "cni plugin not initialized") {
				return fmt.Errorf("without a network: %w", err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range node.Spec.PodCIDRs {
			podCIDRs[node.Name] = append(podCIDRs[node.Name], netip.MustParsePrefix(text))
		}
	}

	started := time.Now()
	startStandInNetwork(t, k, podCIDRs)
	for _, n := range k.Nodes {
		if _, err := client.WaitNode(t.Context(), n.NodeName(), NodeReady); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("both nodes were ready %v after there was a network", time.Since(started).Round(time.Millisecond))

	expectPodsAndService(t, client)

	added, err := k.AddNode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.WaitNode(t.Context(), added.NodeName(), func(node *core.Node) error {
		if len(node.Spec.PodCIDRs) != 2 {
			return fmt.Errorf("its pod CIDRs are %v", node.Spec.PodCIDRs)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// expectPodsAndService starts a web server on each node. They must reach each other by
// the pods' addresses and by the Service's.
func expectPodsAndService(t *testing.T, client *Client) {
	t.Helper()
	started := time.Now()
	if err := client.Apply(t.Context(), "testdata/web"); err != nil {
		t.Fatal(err)
	}
	var pods []*core.Pod
	for number := 1; number <= 2; number++ {
		pod, err := client.WaitPod(t.Context(), "web", fmt.Sprintf("web%d", number), PodReady)
		if err != nil {
			t.Fatal(err)
		}
		pods = append(pods, pod)
	}
	t.Logf("both pods were ready after %v", time.Since(started).Round(time.Millisecond))
	for i, pod := range pods {
		other := pods[1-i]
		for _, ip := range other.Status.PodIPs {
			expectServers(t, client, pod, ip.IP, other.Name)
		}
		for _, ip := range serviceIPs(t, client, "web", "web") {
			expectServers(t, client, pod, ip, pods[0].Name, pods[1].Name)
		}
	}
}

func serviceIPs(t *testing.T, client *Client, namespace, name string) []string {
	t.Helper()
	service, err := client.CoreV1().Services(namespace).Get(t.Context(), name, meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return service.Spec.ClusterIPs
}

// expectServers asks a web server from within a pod until each of those that may answer
// there has done so.
func expectServers(t *testing.T, client *Client, from *core.Pod, at string, want ...string) {
	t.Helper()
	if strings.Contains(at, ":") {
		at = "[" + at + "]"
	}
	answered := make(map[string]bool)
	err := Wait(t.Context(), strings.Join(want, " and ")+" to answer "+from.Name+" at "+at, func(ctx context.Context) error {
		out, err := client.Exec(ctx, from.Namespace, from.Name, "wget", "-q", "-O", "-", "http://"+at+"/cgi-bin/whoami")
		if err != nil {
			return err
		}
		server, _, _ := strings.Cut(out, " ")
		answered[server] = true
		for _, name := range want {
			if !answered[name] {
				return errors.New(name + " has not answered")
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if len(answered) > len(want) {
		t.Errorf("at %s answered %v, want %v", at, answered, want)
	}
}

// startStandInNetwork routes between the nodes, and has ptp wire the pods.
func startStandInNetwork(t *testing.T, k *testnet.Kubernetes, podCIDRs map[string][]netip.Prefix) {
	t.Helper()
	for _, n := range k.Nodes {
		addrs, err := n.Addrs(testnet.UnderlayLink)
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range k.Nodes {
			for i, cidr := range podCIDRs[n.NodeName()] {
				if other == n {
					continue
				}
				if err := other.AddRoute(cidr, addrs[i]); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := os.WriteFile(filepath.Join(n.ConfDir(), "10-ptp.conflist"), conflist(podCIDRs[n.NodeName()]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func conflist(podCIDRs []netip.Prefix) []byte {
	var ranges, routes []any
	for _, cidr := range podCIDRs {
		ranges = append(ranges, []any{map[string]any{"subnet": cidr}})
	}
	for _, everywhere := range []string{"0.0.0.0/0", "::/0"} {
		routes = append(routes, map[string]any{"dst": everywhere})
	}
	data, _ := json.Marshal(map[string]any{
		"cniVersion": "0.4.0", "name": "stand-in",
		"plugins": []any{map[string]any{
			"type": "ptp",
			"ipam": map[string]any{"type": "host-local", "ranges": ranges, "routes": routes},
		}},
	})
	return data
}
