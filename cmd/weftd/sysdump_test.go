package main_test

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/testnet"
)

// TestSysdumpOfACluster has what a maintainer needs of a running node, and none of its secrets.
func TestSysdumpOfACluster(t *testing.T) {
	t.Parallel()
	const hidden = "token-that-stays-secret"
	cluster := startCluster(t, testnet.ClusterOptions{Nodes: 2, Sealed: true, Configure: func(weft map[string]any) {
		weft["cni"].(map[string]any)["extra"] = []any{map[string]any{"type": "sbr", "apiToken": hidden}}
	}})
	node := cluster.Nodes()[0]
	pod := addPod(t, node, "pod")
	if err := os.WriteFile(filepath.Join(node.ConfDir(), "99-calico.conflist"), []byte(`{"name":"k8s","plugins":[{"type":"calico","policy":{"k8s_auth_token":"`+hidden+`"}}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "dump.tar.gz")
	o := finish(t, node.Command(t.Context(), filepath.Join(binDir, "weft"), "sysdump", "--output", archive, "--config", filepath.Join(node.Dir(), "weft.yaml")))
	if o.status != 0 || strings.TrimSpace(o.stdout) != archive {
		t.Fatalf("exit status %d, %s%s", o.status, o.stdout, o.stderr)
	}
	files := filesOf(t, archive)
	addr := addrOf(t, pod, false).String()
	for name, part := range map[string]string{
		"manifest.json":             `"node": "node1"`,
		"doctor.json":               `"code": "host_forward_filter"`,
		"weftd/status.json":         `"name": "node2"`,
		"weftd/metrics.txt":         "weft_packets_total{",
		"weftd/readyz.txt":          "200",
		"weftd/process.txt":         "weftd",
		"config/weft.yaml":          "type: sbr",
		"config/nodes.yaml":         "node2",
		"run/node.json":             `"tun": "weft0"`,
		"state/ipam/weft.json":      addr,
		"cni/10-weft.conflist":      "weft-cni",
		"cni/99-calico.conflist":    "calico",
		"network/links.txt":         "weft0",
		"network/routes4.txt":       addr,
		"network/rules4.txt":        "5180",
		"network/sysctls.txt":       "net/ipv4/conf/weft0/rp_filter = 2",
		"network/proc/softnet_stat": " ",
		"filters/weft.txt":          "chain prerouting",
		"filters/ruleset.txt":       "table inet weft",
	} {
		if !strings.Contains(files[name], part) {
			t.Errorf("%s does not say %q:\n%.1000s", name, part, files[name])
		}
	}
	key, err := os.ReadFile(node.KeyFile())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		for _, secret := range []string{hidden, strings.Split(string(key), "\n")[1], "PRIVATE KEY"} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has the secret %q", name, secret)
			}
		}
	}
}

// filesOf returns the files of an archive by their names without the folder.
func filesOf(t *testing.T, archive string) map[string]string {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(zip); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(header.Name, "/")
		files[name] = string(text)
	}
}
