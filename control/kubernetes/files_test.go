package kubernetes

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAServerOthersCouldPoseAs is refused: without TLS, or with TLS that checks nothing.
func TestAServerOthersCouldPoseAs(t *testing.T) {
	for _, tt := range []struct{ cluster, want string }{
		{`server: "https://192.0.2.1:6443"`, ""},
		{`server: "https://192.0.2.1:6443", insecure-skip-tls-verify: true`, "insecure-skip-tls-verify"},
		{`server: "http://192.0.2.1:8080"`, "to which everything goes in clear"},
		{`server: "HTTP://192.0.2.1:8080"`, "to which everything goes in clear"},
		{`server: "192.0.2.1:8080"`, "to which everything goes in clear"},
		{`server: "http://127.0.0.1:8080"`, ""},
		{`server: "http://[::1]:8080"`, ""},
		{`server: "http://localhost:8080"`, ""},
		{`server: "http://localhost.example.com:8080"`, "to which everything goes in clear"},
	} {
		path := filepath.Join(t.TempDir(), "kubeconfig")
		text := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {%s}}]\nusers: [{name: u, user: {token: a}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\ncurrent-context: x\n", tt.cluster)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := New(Options{Kubeconfig: path, Node: "node1"})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %s", tt.cluster, err, tt.want)
		}
	}
}
