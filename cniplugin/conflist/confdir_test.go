package conflist

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/config"
)

// The network that a runtime takes instead of weft's is named, and nothing is said of files
// that do no harm.
func TestRuntimeTakesWeftsNetwork(t *testing.T) {
	const (
		list   = `{"cniVersion":"1.0.0","name":"old","plugins":[{"type":"bridge"}]}`
		single = `{"cniVersion":"1.0.0","name":"old","type":"bridge"}`
		multus = `{"cniVersion":"0.3.1","name":"multus","plugins":[{"type":"multus","delegates":[{"name":"weft","plugins":[{"type":"weft-cni"}]}]}]}`
	)
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  []string // a part of each warning
	}{
		{"nothing else", nil, nil},
		{"a list before", map[string]string{"05-old.conflist": list}, []string{"uses DIR/05-old.conflist (network old)"}},
		{"a single plugin before", map[string]string{"05-old.conf": single}, []string{"uses DIR/05-old.conf (network old)"}},
		{"by its third extension", map[string]string{"05-old.json": single}, []string{"uses DIR/05-old.json"}},
		{"a hidden one", map[string]string{".old.conf": single}, []string{"uses DIR/.old.conf"}},
		{"a few bytes before", map[string]string{"10-weft.conf": single}, []string{"uses DIR/10-weft.conf "}},
		{"the first of several", map[string]string{"05-b.conflist": list, "05-a.conf": single}, []string{"uses DIR/05-a.conf"}},
		{"one that sorts behind", map[string]string{"100-x.conflist": list, "10-weft.conflist.conf": single, "99-old.conf": single}, nil},
		{"other extensions", map[string]string{"05-old.conflist.bak": list, "05-old": list, "05-kubeconfig": "x"}, nil},
		{"one that can't be used", map[string]string{"05-old.conflist": `{"name":`}, []string{"can't use it"}},
		{"a list in a file for one plugin", map[string]string{"05-old.conf": list}, []string{"can't use it"}},
		{"no plugins", map[string]string{"05-old.conflist": `{"name":"old","plugins":[]}`}, []string{"can't use it"}},
		{"a wrong one, and a right one behind", map[string]string{"04-x.conf": "", "05-old.conf": single}, []string{"reads DIR/04-x.conf", "uses DIR/05-old.conf"}},
		{"one that calls weft's plugin", map[string]string{"00-multus.conflist": multus, "05-old.conf": single}, nil},
		{"one that names weft's network", map[string]string{"00-multus.conf": `{"name":"m","type":"multus","clusterNetwork":"weft"}`}, nil},
		{"one that names weft's file", map[string]string{"00-multus.conf": `{"name":"m","type":"multus","clusterNetwork":"/host/etc/cni/net.d/10-weft.conflist"}`}, nil},
		{"a copy of weft's with a mesh's plugin", map[string]string{"02-istio-cni.conflist": `{"name":"weft","plugins":[{"type":"weft-cni"},{"type":"istio-cni"}]}`}, nil},
		{"one that names another's", map[string]string{"00-multus.conf": `{"name":"m","type":"multus","clusterNetwork":"old"}`}, []string{"uses DIR/00-multus.conf"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tt.files = mapWith(tt.files, config.ConflistName, `{"name":"weft","plugins":[{"type":"weft-cni"}]}`)
			for name, content := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Mkdir(filepath.Join(dir, "01-folder.conf"), 0o755); err != nil {
				t.Fatal(err)
			}
			got := Warnings(config.CNI{ConfDir: dir, Name: "weft"})
			if len(got) != len(tt.want) {
				t.Fatalf("%d warnings, want %d: %v", len(got), len(tt.want), got)
			}
			for i, part := range tt.want {
				if !strings.Contains(got[i].Text, strings.ReplaceAll(part, "DIR", dir)) {
					t.Errorf("%q does not say %q", got[i].Text, part)
				}
			}
		})
	}
	if got := Warnings(config.CNI{ConfDir: filepath.Join(t.TempDir(), "absent")}); len(got) > 0 {
		t.Errorf("without the folder: %v", got)
	}
}

func mapWith(m map[string]string, key, value string) map[string]string {
	with := map[string]string{key: value}
	maps.Copy(with, m)
	return with
}
