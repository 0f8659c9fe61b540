package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// multus has containerd call Multus, which attaches pods to each of the networks. It has no API server
// here, so its own file has what is otherwise in NetworkAttachmentDefinitions.
func (m *machine) multus(t *testing.T, networks ...any) {
	t.Helper()
	m.write(t, "00-multus.conf", map[string]any{
		"cniVersion": "1.0.0", "name": "multus-cni-network", "type": "multus",
		"cniDir": filepath.Join(cacheDir, "multus"), "binDir": systemPlugins,
		"capabilities": map[string]bool{"portMappings": true, "bandwidth": true},
		"delegates":    networks,
	})
}

// expectSecond expects the pod's net1 to be reached, and nothing of it to be left after the pod.
func (p *pod) expectSecond(t *testing.T) {
	t.Helper()
	leases := p.leasesOf(t, "second")
	if len(leases) != 1 || leases[0].IfName != "net1" || leases[0].ContainerID != p.id {
		t.Fatalf("leases of the second network: %v", leases)
	}
	expectReached(t, node2, "net1", leases[0].Addresses)
	if err := p.remove(t.Context()); err != nil {
		t.Error(err)
	}
	if leases := p.leasesOf(t, "second"); len(leases) > 0 {
		t.Errorf("left are the leases %v", leases)
	}
}

// TestMultus: Multus calls weft's conflist for eth0, and a second network of weft-cni's for net1.
func TestMultus(t *testing.T) {
	begin(t)
	conflist, err := os.ReadFile(filepath.Join(node1.ConfDir(), "10-weft.conflist"))
	if err != nil {
		t.Fatal(err)
	}
	node1.multus(t, json.RawMessage(conflist), node1.documented(t, "Multus"))
	if out, err := node1.run(t.Context(), filepath.Join(binDir, "weft"), "status", "--socket", node1.Socket()); err != nil || strings.Contains(out, "the container runtime uses") {
		t.Errorf("weft status: %v\n%s", err, out)
	}
	p := run(t, node1, withEverything(node1.sandbox("pod")))
	if lease := p.lease(t); !slices.Equal(p.addrs, lease.Addresses) {
		t.Errorf("containerd reports the addresses %v, leased are %v", p.addrs, lease.Addresses)
	}
	p.startServer(t)
	expectReached(t, node2, "eth0", p.addrs)
	p.expectSecond(t)
}

// TestMultusBesideOtherNetwork: Multus calls another network's plugin for eth0, and weft-cni for net1.
func TestMultusBesideOtherNetwork(t *testing.T) {
	begin(t)
	second := node1.documented(t, "Multus")
	second["plugins"] = slices.DeleteFunc(second["plugins"].([]any), func(p any) bool { return p.(map[string]any)["type"] == "sbr" })
	node1.multus(t, map[string]any{"cniVersion": "1.0.0", "name": "first", "plugins": []any{ptp()}}, second)
	p := run(t, node1, node1.sandbox("pod"))
	p.expectSecond(t)
}
