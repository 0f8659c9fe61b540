package cniplugin

import (
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// The addresses are weft's own leases: no other plugin is asked for any. A pod of a network
// that was configured otherwise can go nevertheless.
func TestIPAMTypeIsRefused(t *testing.T) {
	n := newNode(t, families["IPv4"]...)
	n.pod = newNamespace(t)
	call := func(t *testing.T, do func(*skel.CmdArgs) error, name string) error {
		args, conf := n.args("pod", n.pod.Path()), n.conf("1.1.0")
		conf["ipam"] = map[string]any{"type": name}
		conf["cni.dev/valid-attachments"] = []any{}
		conf["prevResult"] = map[string]any{"cniVersion": "1.1.0"}
		args.StdinData = encode(t, conf)
		return n.call(do, args)
	}
	for command, do := range map[string]func(*skel.CmdArgs) error{
		"ADD": n.plugin.Add, "DEL": n.plugin.Del, "CHECK": n.plugin.Check, "GC": n.plugin.GC, "STATUS": n.plugin.Status,
	} {
		for _, name := range []string{"host-local", "weft-ipam"} {
			t.Run(command+" "+name, func(t *testing.T) {
				err := call(t, do, name)
				if command == "DEL" || command == "GC" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				requireCode(t, err, types.ErrInvalidNetworkConfig)
				if !strings.Contains(err.Error(), "remove ipam.type") {
					t.Errorf("%q lacks the remedy", err)
				}
			})
		}
		for _, name := range []string{"../x", "sub/x", "/bin/true", "..", ".", "sub/", "x\x00", strings.Repeat("x", 256)} {
			t.Run(command+" "+name[:min(len(name), 20)], func(t *testing.T) {
				requireCode(t, call(t, do, name), types.ErrInvalidNetworkConfig)
			})
		}
	}
	n.requireNothingLeft()
}
