package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// networkReady is what kubelet asks before it starts pods.
func (m *machine) networkReady(ctx context.Context) error {
	status, err := m.pods.Status(ctx, &cri.StatusRequest{})
	if err != nil {
		return err
	}
	for _, c := range status.Status.Conditions {
		if c.Type == cri.NetworkReady && !c.Status {
			return errors.New(c.Reason + ": " + c.Message)
		}
	}
	return nil
}

// stopWeftd stops weftd in an orderly way. The conflist stays.
func (m *machine) stopWeftd(t *testing.T) {
	t.Helper()
	if err := m.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// removeConflist returns when containerd knows that it is gone.
func (m *machine) removeConflist(t *testing.T) {
	t.Helper()
	if err := os.Remove(filepath.Join(m.Dir(), "cni", "10-weft.conflist")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "containerd to see that there is no network", func(ctx context.Context) error {
		if m.networkReady(ctx) == nil {
			return errors.New("the network is ready")
		}
		return nil
	})
}

// startWeftd starts weftd, and returns when containerd knows.
func (m *machine) startWeftd(t *testing.T) {
	t.Helper()
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "containerd to see the network", m.networkReady)
}

const (
	// noNetwork is what containerd says when no conflist is there.
	noNetwork = "cni plugin not initialized"

	// noGuard is what weft-cni says while the guard does not stand.
	noGuard = "start weftd"
)

// TestPodsStartOnlyProtected: pods start while the guard stands, whether or not weftd runs.
func TestPodsStartOnlyProtected(t *testing.T) {
	begin(t)
	node1.stopWeftd(t)
	if err := run(t, node1, node1.sandbox("early")).remove(t.Context()); err != nil {
		t.Errorf("a pod that started without weftd: %v", err)
	}
	if _, err := node1.Exec(t.Context(), "nft", "delete", "table", "inet", "weft"); err != nil {
		t.Fatal(err)
	}
	config := node1.sandbox("pod")
	if _, err := node1.runPod(t.Context(), config); err == nil || !strings.Contains(err.Error(), noGuard) {
		t.Errorf("without the guard a pod starts, or does not say why it does not: %v", err)
	}
	node1.removeConflist(t) // as before the first start of weftd
	config.Metadata.Attempt++
	if _, err := node1.runPod(t.Context(), config); err == nil || !strings.Contains(err.Error(), noNetwork) {
		t.Errorf("before weftd a pod starts, or does not say why it does not: %v", err)
	}
	node1.startWeftd(t)
	// A failed sandbox stays until it is removed, and kubelet counts its attempts.
	config.Metadata.Attempt++
	run(t, node1, config)
}

func TestAPodGoesWhileWeftdIsStopped(t *testing.T) {
	begin(t)
	p := run(t, node1, node1.sandbox("pod"))
	node1.stopWeftd(t)
	if err := p.remove(t.Context()); err != nil {
		t.Error(err)
	}
	node1.startWeftd(t)
}

// withEverything has portmap and bandwidth do something for the pod, too.
func withEverything(config *cri.PodSandboxConfig) *cri.PodSandboxConfig {
	config.PortMappings = []*cri.PortMapping{{Protocol: cri.Protocol_TCP, ContainerPort: serverPort, HostPort: hostPort}}
	config.Annotations = map[string]string{"kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "20M"}
	return config
}

func TestPodLeavesNoTraceAfterKills(t *testing.T) {
	for _, tt := range []struct {
		name string
		kill func()
		// start starts again what was killed.
		start func(context.Context) error
	}{
		{"weftd", node1.Kill, node1.Start},
		{"containerd", node1.Containerd.Kill, node1.startContainerd},
		{"both", func() { node1.Kill(); node1.Containerd.Kill() }, func(ctx context.Context) error {
			return errors.Join(node1.startContainerd(ctx), node1.Start(ctx))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			begin(t)
			p := run(t, node1, withEverything(node1.sandbox("pod")))
			p.startServer(t)
			tt.kill()
			if err := tt.start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := p.remove(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// The other tests want to find nothing of this when their pods are gone.
func TestRunningPodHasEveryTrace(t *testing.T) {
	begin(t)
	run(t, node1, withEverything(node1.sandbox("pod")))
	for what, found := range node1.traces(t.Context(), t) {
		if len(found) == 0 {
			t.Errorf("a running pod has no %s", what)
		}
	}
}
