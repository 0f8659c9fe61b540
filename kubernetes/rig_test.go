package kubernetes

import (
	"os"
	"path/filepath"
	"testing"

	"weft/internal/testnet"
)

// Programs that make builds.
const (
	weftPrograms       = "../bin"
	kubernetesPrograms = "../bin/kubernetes"
)

func newNet(t *testing.T) *testnet.Net {
	t.Helper()
	if _, err := os.Stat(filepath.Join(kubernetesPrograms, "kube-apiserver")); err != nil {
		t.Fatalf("run this by `make test-kubernetes`: %v", err)
	}
	return testnet.ForTest(t, testnet.Options{Prefix: "weft-kube", BinDir: weftPrograms})
}

func admin(t *testing.T, server *testnet.APIServer) *Client {
	t.Helper()
	client, err := Admin(server)
	if err != nil {
		t.Fatal(err)
	}
	return client
}
