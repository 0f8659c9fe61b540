package kubernetes

import (
	"os"
	"testing"
	"time"
)

// shipped are what make has written.
var shipped = Files{Image: "../bin/image/weft.tar", Manifests: "../bin/manifests", Programs: weftPrograms}

func newInstalled(t *testing.T) *Installed {
	t.Helper()
	for _, path := range []string{shipped.Image, shipped.Manifests + "/weft.yaml"} {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("run this by `make test-kubernetes`: %v", err)
		}
	}
	in, err := NewInstalled(t.Context(), newNet(t), 2, kubernetesPrograms, shipped)
	check(t, err)
	return in
}

func (in *Installed) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := in.Kubectl(t.Context(), args...)
	check(t, err)
	return out
}

func TestWeftIsInstalledByItsManifest(t *testing.T) {
	in := newInstalled(t)
	started := time.Now()
	check(t, in.Apply(t.Context()))
	check(t, in.AwaitReady(t.Context()))
	t.Logf("the nodes are ready %v after kubectl apply", time.Since(started).Round(time.Millisecond))
	expectPodsAndService(t, in.Admin)
	t.Logf("pods talk %v after kubectl apply", time.Since(started).Round(time.Millisecond))
}
