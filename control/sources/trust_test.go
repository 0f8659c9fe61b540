package sources

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"weft/internal/config"
	"weft/internal/warning"
)

const kubeconfigText = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://192.0.2.1", certificate-authority: ca}}]
users: [{name: u, user: {tokenFile: token, client-certificate: cert, client-key: key}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`

// trustRig has a configuration for each control source, and all files that it names.
func trustRig(t *testing.T) (dir string, configs map[config.Source]config.Config) {
	t.Helper()
	dir = t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"weft.yaml", "ca", "cert", "key", "password", "token", "nodes.yaml", "node.key"} {
		if err := os.WriteFile(at(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(at("kubeconfig"), []byte(kubeconfigText), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"run", "state"} {
		if err := os.Mkdir(at(name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	base := config.Config{Node: "node1", RunDir: at("run"), StateDir: at("state"), Encapsulation: config.EncapsulationSealed, KeyFile: at("node.key"), ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}
	configs = map[config.Source]config.Config{}
	for source, control := range map[config.Source]config.Control{
		config.SourceFile: {File: at("nodes.yaml")},
		config.SourceEtcd: {Etcd: config.Etcd{Endpoints: []string{"https://192.0.2.1:2379"}, CAFile: at("ca"), CertFile: at("cert"), KeyFile: at("key"),
			Username: "u", PasswordFile: at("password"), Prefix: "/weft", MaskIPv4: 24}},
		config.SourceKubernetes: {Kubernetes: config.Kubernetes{Kubeconfig: at("kubeconfig")}},
	} {
		c := base
		c.Control = control
		c.Control.Source = source
		configs[source] = c
	}
	return dir, configs
}

// TestFilesThatOthersChangeAreRefused: whatever decides what weftd believes, with each control
// source, by itself and by its folder.
func TestFilesThatOthersChangeAreRefused(t *testing.T) {
	for source, files := range map[config.Source][]string{
		config.SourceFile:       {"weft.yaml", "nodes.yaml"},
		config.SourceEtcd:       {"weft.yaml", "ca", "cert", "key", "password"},
		config.SourceKubernetes: {"weft.yaml", "kubeconfig", "ca", "cert", "key", "token"},
	} {
		dir, configs := trustRig(t)
		c := configs[source]
		believed := func() error {
			if err := CheckFiles(filepath.Join(dir, "weft.yaml"), c); err != nil || source != config.SourceFile {
				return err
			}
			s, err := Open(c)
			if err != nil {
				return err
			}
			_, err = s.Load(t.Context())
			return err
		}
		if err := believed(); err != nil && !strings.Contains(err.Error(), "nodes.yaml: ") {
			t.Fatalf("%s: %v", source, err)
		}
		for _, name := range append(files, "run", "state", ".") {
			path := filepath.Join(dir, name)
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, info.Mode().Perm()|0o002); err != nil {
				t.Fatal(err)
			}
			if err := believed(); err == nil || !strings.Contains(err.Error(), path+": every user can write to ") || !strings.Contains(err.Error(), "; chmod o-w "+path) {
				t.Errorf("%s: every user can write to %s: %v", source, name, err)
			}
			const nobody = 65534
			if err := errors.Join(os.Chmod(path, info.Mode().Perm()), os.Chown(path, nobody, -1)); err != nil {
				t.Fatal(err)
			}
			if err := believed(); err == nil || !strings.Contains(err.Error(), path+": it belongs to another user (65534)") {
				t.Errorf("%s: another user has %s: %v", source, name, err)
			}
			if err := os.Chown(path, os.Geteuid(), -1); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestReadableSecretsAndClearEtcdWarn: others can then pose as this node, or as etcd.
func TestReadableSecretsAndClearEtcdWarn(t *testing.T) {
	dir, configs := trustRig(t)
	etcd, kubernetes := configs[config.SourceEtcd], configs[config.SourceKubernetes]
	plain := func(endpoints ...string) config.Config {
		c := etcd
		c.Control.Etcd = config.Etcd{Endpoints: endpoints}
		return c
	}
	expect := func(name string, c config.Config, want ...string) {
		t.Helper()
		counts := warning.Counts(Warnings(c))
		var got []string
		for code := range counts {
			got = append(got, code)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s: warnings %v, want %v", name, got, want)
		}
	}
	for _, folder := range []string{dir, filepath.Dir(dir)} { // the test's own
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	expect("etcd", etcd)
	expect("Kubernetes", kubernetes)
	expect("a file", configs[config.SourceFile])
	expect("etcd in clear", plain("https://192.0.2.1:2379", "http://192.0.2.2:2379"), "etcd_in_clear")
	expect("etcd in clear on this host", plain("http://127.0.0.1:2379", "http://[::1]:2379", "http://localhost:2379"))
	if err := errors.Join(os.Chmod(filepath.Join(dir, "password"), 0o644), os.Chmod(filepath.Join(dir, "token"), 0o644)); err != nil {
		t.Fatal(err)
	}
	expect("a password that all can read", etcd, "secret_readable")
	expect("a token that all can read", kubernetes, "secret_readable")
}
