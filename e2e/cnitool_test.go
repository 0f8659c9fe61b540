package e2e

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	types "github.com/containernetworking/cni/pkg/types/100"

	"weft/internal/testnet"
)

// sandbox is a network namespace in a machine, for cnitool.
const sandbox = "sandbox"

// cnitool calls the plugins of the machine's conflist, as far as its version allows that.
func (m *machine) cnitool(ctx context.Context, verb string, environ ...string) (string, error) {
	return m.cnitoolFor(ctx, "weft", verb, environ...)
}

// cnitoolFor is cnitool for another network of the same folder. The environment may name another
// CNI_PATH.
func (m *machine) cnitoolFor(ctx context.Context, network, verb string, environ ...string) (string, error) {
	return m.runWith(ctx, append([]string{"CNI_PATH=" + binDir, "NETCONFPATH=" + m.ConfDir()}, environ...),
		filepath.Join(binDir, "cnitool"), verb, network, filepath.Join(netnsDir, sandbox))
}

// addSandbox makes the namespace, which goes at the end of the test.
func (m *machine) addSandbox(t *testing.T) {
	t.Helper()
	if _, err := m.run(t.Context(), "ip", "netns", "add", sandbox); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		_, err := m.cnitool(ctx, "del") // if the test came to an end before
		if _, delErr := m.run(ctx, "ip", "netns", "del", sandbox); err != nil || delErr != nil {
			t.Error(err, delErr)
		}
	})
}

// resultAddrs reads the addresses out of what ADD prints.
func resultAddrs(t *testing.T, out string) (addrs []netip.Addr) {
	t.Helper()
	var result types.Result
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		t.Fatalf("read the result: %v\n%s", err, out)
	}
	addrs, err := testnet.ResultAddrs(&result)
	if err != nil || len(addrs) != 2 {
		t.Fatalf("want an address of each family, %v:\n%s", err, out)
	}
	return addrs
}

func TestCnitoolDrivesEveryVerb(t *testing.T) {
	begin(t)
	verb := func(name string) (out string) {
		t.Helper()
		out, err := alone.cnitool(t.Context(), name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return out
	}
	versions, err := alone.runWith(t.Context(), []string{"CNI_COMMAND=VERSION"}, filepath.Join(binDir, "weft-cni"))
	if err != nil || !strings.Contains(versions, `"0.3.1","0.4.0","1.0.0","1.1.0"`) {
		t.Errorf("VERSION: %s, %v", versions, err)
	}

	verb("status")
	alone.Kill()
	verb("status")                                                                 // which a restart must not fail
	if err := os.Remove(filepath.Join(alone.RunDir(), "forwarding")); err != nil { // as if it had never forwarded
		t.Fatal(err)
	}
	if out, err := alone.cnitool(t.Context(), "status"); err == nil || !strings.Contains(err.Error(), "weftd") {
		t.Errorf("STATUS without weftd: %s, %v", out, err)
	}
	if err := alone.Start(t.Context()); err != nil {
		t.Fatal(err)
	}

	alone.addSandbox(t)
	addrs := resultAddrs(t, verb("add"))
	expectReached(t, node1, "after ADD", addrs)
	if _, err := alone.cnitool(t.Context(), "add"); err == nil {
		t.Error("a second ADD succeeds")
	}
	verb("check")
	if _, err := alone.run(t.Context(), "ip", "-n", sandbox, "route", "del", "default"); err != nil {
		t.Fatal(err)
	}
	if _, err := alone.cnitool(t.Context(), "check"); err == nil || !strings.Contains(err.Error(), "route to 0.0.0.0/0") {
		t.Errorf("CHECK of a pod without a default route: %v", err)
	}
	verb("del")
	verb("del")

	// By cnitool nothing is valid, and libcni itself has DEL called for what is in its
	// cache. The running pod is in the cache of another runtime.
	running, err := alone.AddPod(t.Context(), "running")
	if err != nil {
		t.Fatal(err)
	}
	verb("gc")
	expectReached(t, node1, "after GC", running.Addrs)
	if err := alone.DeletePod(t.Context(), "running"); err != nil {
		t.Error(err)
	}
}

func TestCnitoolDrivesTheWholeChain(t *testing.T) {
	begin(t)
	node1.addSandbox(t)
	const (
		bandwidth = `"bandwidth": {"ingressRate": 10000000, "ingressBurst": 1000000, "egressRate": 10000000, "egressBurst": 1000000}`
		ports     = `"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]`
		names     = `"ips": ["10.244.1.77"], "mac": "02:00:00:00:12:34"`

		all = "CAP_ARGS={" + bandwidth + "," + ports + "," + names + "}"
		// With two families, CHECK of the portmap in Debian 12 looks for the rules of one
		// in the tables of both (issue 819 of containernetworking/plugins).
		allButPorts = "CAP_ARGS={" + bandwidth + "," + names + "}"
	)
	out, err := node1.cnitool(t.Context(), "add", all)
	if err != nil {
		t.Fatal(err)
	}
	addrs := resultAddrs(t, out)
	expectReached(t, node2, "after ADD", addrs)
	if addrs[0] != netip.MustParseAddr("10.244.1.77") || !strings.Contains(out, "02:00:00:00:12:34") {
		t.Errorf("the pod has not the addresses that were asked for: %s", out)
	}
	for _, call := range []struct{ verb, asked string }{{"check", allButPorts}, {"status", all}, {"gc", all}, {"del", all}} {
		if _, err := node1.cnitool(t.Context(), call.verb, call.asked); err != nil {
			t.Errorf("%s: %v", call.verb, err)
		}
	}
}
