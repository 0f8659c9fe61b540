package cniplugin

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"weft/internal/nodefile"
)

func TestSTATUSIs50WhileNoAddressCanBeHadAnd51WhileWeftdIsNotReady(t *testing.T) {
	n := newNode(t, "10.244.1.0/30") // one address beside the node's own
	described, err := nodefile.Read(n.runDir)
	if err != nil {
		t.Fatal(err)
	}
	described.RestSeconds = 60
	if err := nodefile.Write(n.runDir, described); err != nil {
		t.Fatal(err)
	}
	status := func() error { return n.call(n.plugin.Status, n.args("", "")) }
	if err := status(); err != nil {
		t.Fatalf("with a free address: %v", err)
	}
	pod := n.attachPod("pod")
	requireCode(t, status(), types.ErrPluginNotAvailable)
	if err := n.call(n.plugin.Del, n.args("pod", pod.Path())); err != nil {
		t.Fatal(err)
	}
	requireCode(t, status(), types.ErrPluginNotAvailable) // it rests
	described.RestSeconds = 0
	if err := nodefile.Write(n.runDir, described); err != nil {
		t.Fatal(err)
	}
	if err := status(); err != nil {
		t.Errorf("with an address that has rested: %v", err)
	}
	if err := os.Remove(filepath.Join(n.runDir, nodefile.Name)); err != nil {
		t.Fatal(err)
	}
	requireCode(t, status(), types.ErrLimitedConnectivity)
}
