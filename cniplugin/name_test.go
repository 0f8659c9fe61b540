package cniplugin

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// No command executes a program outside the runtime's folders of plugins, whatever the
// configuration calls the IPAM plugin.
func TestIPAMTypeNeverLeadsElsewhere(t *testing.T) {
	root := t.TempDir()
	plugins, ran := filepath.Join(root, "plugins"), filepath.Join(root, "ran")
	for _, dir := range []string{plugins, filepath.Join(plugins, "sub")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{filepath.Join(root, "x"), filepath.Join(plugins, "sub", "x")} {
		if err := os.WriteFile(path, []byte("#!/bin/sh\necho $0 >>"+ran+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	n := newNode(t, families["IPv4"]...)
	n.pod = newNamespace(t)
	for _, name := range []string{"../x", "../../x", "sub/x", "./sub/x", "/bin/true", root + "/x", "..", ".", "sub/", "x\x00", strings.Repeat("x", 256)} {
		for command, do := range map[string]func(*skel.CmdArgs) error{
			"ADD": n.plugin.Add, "DEL": n.plugin.Del, "CHECK": n.plugin.Check, "GC": n.plugin.GC, "STATUS": n.plugin.Status,
		} {
			t.Run(command+" "+name[:min(len(name), 20)], func(t *testing.T) {
				args := n.args("pod", n.pod.Path())
				conf := n.conf("1.1.0")
				conf["ipam"] = map[string]any{"type": name}
				conf["cni.dev/valid-attachments"] = []any{}
				conf["prevResult"] = map[string]any{"cniVersion": "1.1.0"}
				args.StdinData = encode(t, conf)
				t.Setenv("CNI_PATH", plugins)
				requireCode(t, n.call(do, args), types.ErrInvalidNetworkConfig)
			})
		}
		t.Run("lookup "+name[:min(len(name), 20)], func(t *testing.T) {
			t.Setenv("CNI_PATH", plugins)
			path, err := findPlugin(name)
			requireCode(t, cniError(err), types.ErrInvalidNetworkConfig)
			if path != "" {
				t.Errorf("it leads to %s", path)
			}
		})
	}
	if out, err := os.ReadFile(ran); err == nil {
		t.Errorf("executed: %s", out)
	}
	n.requireNothingLeft()
}
