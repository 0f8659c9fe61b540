package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/status"
	"weft/internal/testnet"
)

// connectivity runs `weft connectivity test` on a node, and returns its results by check.
func connectivity(t *testing.T, n *testnet.Node, args ...string) (results map[string]result, failed bool) {
	t.Helper()
	args = append([]string{"--socket", filepath.Join(n.RunDir(), status.SocketName), "connectivity", "test", "-o", "json"}, args...)
	out, err := n.Exec(t.Context(), filepath.Join(binDir, "weft"), args...)
	var report struct {
		Results                 []result
		Passed, Failed, Skipped int
	}
	if parsed := json.Unmarshal([]byte(out), &report); parsed != nil {
		t.Fatalf("%v, %v: %s", err, parsed, out)
	}
	results = map[string]result{}
	for _, r := range report.Results {
		results[r.Check] = r
	}
	if failed = err != nil; failed != (report.Failed > 0) {
		t.Errorf("%d checks failed, and the command ended with %v", report.Failed, err)
	}
	return results, failed
}

type result struct{ Check, Outcome, Detail, Cause string }

// withPlugins has the plugins behind weft-cni that weftd calls by default.
func withPlugins(t *testing.T) func(weft map[string]any) {
	t.Helper()
	dir, chain := t.TempDir(), []string{"portmap", "bandwidth", "tuning"}
	for _, name := range chain {
		if err := os.Symlink(filepath.Join("/usr/lib/cni", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(binDir, "weft-cni"), filepath.Join(dir, "weft-cni")); err != nil {
		t.Fatal(err)
	}
	return func(weft map[string]any) {
		cni := weft["cni"].(map[string]any)
		cni["binDir"], cni["chain"] = dir, chain
	}
}

func TestConnectivityTest(t *testing.T) {
	t.Parallel()
	for _, encapsulation := range []string{"sealed", "vxlan"} {
		t.Run(encapsulation, func(t *testing.T) {
			t.Parallel()
			cluster := startCluster(t, testnet.ClusterOptions{Nodes: 3, Sealed: encapsulation == "sealed", Configure: withPlugins(t)})
			node1, node2, node3 := cluster.Nodes()[0], cluster.Nodes()[1], cluster.Nodes()[2]
			results, failed := connectivity(t, node1)
			for _, check := range []string{
				"add a pod", "pod → its node: ping over IPv4", "node → its pod: TCP over IPv6", "pod → pod on this node: UDP over IPv6",
				"pod → node2: ping over IPv4", "pod → node3: TCP over IPv6", "pod → node2: UDP over IPv4",
			} {
				if results[check].Outcome != "passed" {
					t.Errorf("%s: %+v", check, results[check])
				}
			}
			if failed || len(results) != 1+2*4+2*2*4 {
				t.Errorf("%d different checks: %v", len(results), results)
			}

			t.Run("what it finds", func(t *testing.T) {
				closed := testnet.OutsideAddr4.String() + ":443"
				results, _ := connectivity(t, node1, "node2", "--outside", closed)
				if r := results["pod → "+closed+": TCP"]; r.Outcome != "failed" || !strings.Contains(r.Cause, "nothing listens at "+closed) {
					t.Errorf("nothing listens there: %+v", r)
				}
				node3.Kill()
				run(t, node2.Namespace, "nft", "table inet foreign { chain in { type filter hook input priority 0; ip protocol icmp drop; }; }")
				results, failed = connectivity(t, node1, "--timeout", "2s")
				if r := results["pod → node2: ping over IPv4"]; r.Outcome != "failed" || !strings.Contains(r.Cause, "the kernel there or here drops") {
					t.Errorf("ICMP is dropped there: %+v", r)
				}
				if r := results["pod → node2: TCP over IPv6"]; r.Outcome != "passed" {
					t.Errorf("ICMPv6 passes there: %+v", r)
				}
				if r := results["pod → node3: ping over IPv4"]; r.Outcome != "failed" || !strings.Contains(r.Cause, "node3") {
					t.Errorf("weftd is stopped there: %+v", r)
				}
				if !failed {
					t.Error("the command succeeded")
				}
				run(t, node1.Namespace, "nft", "table inet foreign { chain between { type filter hook forward priority 0; oifname \"weft*\" tcp dport 1024-65535 drop; }; }")
				results, _ = connectivity(t, node1, "node2", "--timeout", "2s")
				if r := results["pod → node2: TCP over IPv6"]; r.Outcome != "failed" || !strings.Contains(r.Cause, "inet foreign between") {
					t.Errorf("another program's filter drops TCP here: %+v", r)
				}
			})
			if leases := report(t, node1).Leases.Held; leases != 0 {
				t.Errorf("%d leases are left", leases)
			}
		})
	}
}

// TestConnectivityTestKilled: the next test removes what it left.
func TestConnectivityTestKilled(t *testing.T) {
	t.Parallel()
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 1})
	node := cluster.Nodes()[0]
	test := node.Command(t.Context(), filepath.Join(binDir, "weft"), "--socket", filepath.Join(node.RunDir(), status.SocketName), "connectivity", "test", "--outside", "198.51.100.77:9", "--timeout", "10m")
	if err := test.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "stand-ins are there", func() error {
		if r := report(t, node); r.Leases.Held < 2 {
			return errors.New("not yet")
		}
		return nil
	})
	_ = test.Process.Kill()
	_ = test.Wait()
	if _, failed := connectivity(t, node); failed {
		t.Error("the next test fails")
	}
	for _, suffix := range []string{"a", "b"} {
		if _, err := os.Stat(fmt.Sprintf("/run/netns/weft-check-%d-%s", test.Process.Pid, suffix)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a namespace is left: %v", err)
		}
	}
	eventually(t, "no leases are left", func() error { // another cluster's test may have removed the namespace
		if n := report(t, node).Leases.Held; n != 0 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
}
