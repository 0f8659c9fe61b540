package sysdump

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"weft/internal/config"
	"weft/internal/doctor"
	"weft/internal/nodekey"
)

// dump collects, and returns the files by their names.
func dump(t *testing.T, in doctor.Input) (map[string]string, Manifest) {
	t.Helper()
	var archive bytes.Buffer
	if _, err := Write(t.Context(), &archive, in, func(string, int, int) {}); err != nil {
		t.Fatal(err)
	}
	zip, err := gzip.NewReader(&archive)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(zip); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		folder, name, _ := strings.Cut(header.Name, "/")
		if !strings.HasPrefix(folder, "weft-sysdump-") || path.Clean(name) != name || header.Mode != 0o600 {
			t.Errorf("%s has mode %o", header.Name, header.Mode)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(text)
	}
	var m Manifest
	if err := json.Unmarshal([]byte(files["manifest.json"]), &m); err != nil {
		t.Fatal(err)
	}
	return files, m
}

// secrets are what no archive may hold.
var secrets = map[string]string{
	"password": "hunter2-of-etcd", "key.pem": "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIEtcdClientKeyEtcdClientKey\n-----END EC PRIVATE KEY-----\n",
	"token": "opaque-token-of-this-node", "inline": "inline-token-of-a-user", "plugin": "token-in-a-conflist", "extra": "token-of-a-chained-plugin",
}

// expectNoSecrets looks for each secret, and for the lines of keys, in all files.
func expectNoSecrets(t *testing.T, files map[string]string, more ...string) {
	t.Helper()
	for _, s := range secrets {
		more = append(more, strings.Split(strings.TrimSpace(s), "\n")...)
	}
	for name, text := range files {
		for _, line := range more {
			if len(line) >= 10 && !strings.HasPrefix(line, "-----") && strings.Contains(text, line) {
				t.Errorf("%s has the secret %q", name, line)
			}
		}
		if strings.Contains(text, "PRIVATE KEY") {
			t.Errorf("%s has a private key", name)
		}
	}
}

// TestNoSecretsInArchives with each control source, also where they got into logs and into other
// programs' files.
func TestNoSecretsInArchives(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(at(name)), 0o755), os.WriteFile(at(name), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range secrets {
		write(name, text)
	}
	if _, _, err := nodekey.Generate(dir); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(at(nodekey.FileName))
	if err != nil {
		t.Fatal(err)
	}
	write("kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: %q}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, secrets["inline"]))
	write("cni/99-calico.conflist", `{"name":"k8s","plugins":[{"type":"calico","policy":{"k8s_auth_token":"`+secrets["plugin"]+`"}}]}`)
	write("cni/98-../../x.conf", `{}`)
	write("run/node.json", `{"name":"node1","note":"`+secrets["password"]+`"}`) // as if it had got there
	write("state/ipam/weft.json", "lease of "+strings.Split(string(key), "\n")[1])
	for source, control := range map[config.Source]string{
		config.SourceFile:       fmt.Sprintf("{file: %s/nodes.yaml}", dir),
		config.SourceEtcd:       fmt.Sprintf(`{etcd: {endpoints: ["https://127.0.0.1:1"], username: u, passwordFile: %[1]s/password, certFile: %[1]s/cert.pem, keyFile: %[1]s/key.pem}}`, dir),
		config.SourceKubernetes: fmt.Sprintf(`{kubernetes: {kubeconfig: %s/kubeconfig}}`, dir),
	} {
		write("weft.yaml", fmt.Sprintf(`# %[3]s
node: node1
clusterCIDRs: [10.244.0.0/16]
keyFile: %[1]s/node.key
control: %[2]s
stateDir: %[1]s/state
runDir: %[1]s/run
metrics: {listen: ""}
cni: {confDir: %[1]s/cni, binDir: %[1]s, chain: [], extra: [{type: sbr, apiToken: %[4]s}]}
`, dir, control, secrets["password"], secrets["extra"]))
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		config.AddFlags(flags)
		if err := flags.Parse([]string{"--config", at("weft.yaml")}); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(flags, nil)
		if err != nil {
			t.Fatal(err)
		}
		files, m := dump(t, doctor.Input{Config: c, ConfigPath: at("weft.yaml"), Socket: at("run/weftd.sock"), Root: dir})
		hidden := []string{strings.Split(string(key), "\n")[1]}
		if source != config.SourceEtcd {
			delete(files, "run/node.json") // the password is not this configuration's
		}
		expectNoSecrets(t, files, hidden...)
		for _, name := range []string{"doctor.json", "config/weft.yaml", "config/effective.json", "cni/99-calico.conflist", "state/ipam/weft.json", "network/links.txt", "filters/ruleset.txt", "host/kernel.txt"} {
			if !strings.Contains(files["manifest.json"], `"`+name+`"`) || files[name] == "" && name != "filters/ruleset.txt" {
				t.Errorf("%s: there is no %s", source, name)
			}
		}
		if m.Node != "node1" || m.Failed() == 0 || !strings.Contains(files["manifest.json"], "no weftd answers at") {
			t.Errorf("%s: the manifest does not say that no weftd answers:\n%s", source, files["manifest.json"])
		}
		if !strings.Contains(files["config/weft.yaml"], "type: sbr") {
			t.Errorf("%s: the configuration lacks what is no secret:\n%s", source, files["config/weft.yaml"])
		}
	}
}

// A file that is too large, or whose collection fails or hangs, costs no other one.
func TestFilesAreBounded(t *testing.T) {
	line := []byte(strings.Repeat("x", 99) + "\n")
	text, err := bounded(t.Context(), func(context.Context) ([]byte, error) { return bytes.Repeat(line, mostBytes/100+2), nil })
	if !errors.Is(err, errTruncated) || len(text) > mostBytes || len(text)%100 != 0 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if text, err := bounded(t.Context(), command("x", "no-such-program").collect); err == nil || len(text) > 0 {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := bounded(t.Context(), command("x", "sh", "-c", "echo half; echo why >&2; exit 3").collect); string(text) != "half\n" || err == nil || !strings.Contains(err.Error(), "exit status 3: why") {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := read("/dev/zero"); err == nil {
		t.Error("a device was read")
	}
	for name, want := range map[string]string{"../../etc/x": "_.._etc_x", "a b": "a_b", "": "host", "..": "host", "10-weft.conflist": "10-weft.conflist"} {
		if got := fileName(name); got != want {
			t.Errorf("fileName(%q) = %q, want %q", name, got, want)
		}
	}
}

// Where the configuration can't be read, the files that it names are still known.
func TestSecretsOfUnreadableConfig(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "weft.yaml")
	text := fmt.Sprintf("control: {etcd: {passwordFile: %[1]s/password, endpoints: ['https://root:geheim@e:1']}}\nlisten: [\n", dir)
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "password"), []byte(secrets["password"]), 0o600), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	s := newScrubber(doctor.Input{ConfigPath: path, ConfigErr: errors.New("not valid YAML")})
	if got := string(s.scrub([]byte("login with " + secrets["password"]))); got != "login with REMOVED" {
		t.Error(got)
	}
}
