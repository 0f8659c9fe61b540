package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/google/renameio/v2"
)

// mesh is a plugin like that of a service mesh: it makes nothing, and passes on the result of the
// plugins before it. The tests' own program is the plugin.
const mesh = "mesh-cni"

// meshConf is the plugin's entry in a conflist.
type meshConf struct {
	types.PluginConf

	// Log is a file to which the plugin appends the command of each call.
	Log string `json:"log"`
}

// failing is the file that lists the commands that the plugin fails.
func (c meshConf) failing() string { return c.Log + ".failing" }

// entry is the plugin's entry, as its installer writes it.
func (c meshConf) entry() map[string]any { return map[string]any{"type": mesh, "log": c.Log} }

// called returns the commands that the plugin was called with, in order.
func (c meshConf) called() []string {
	log, _ := os.ReadFile(c.Log)
	return strings.Fields(string(log))
}

// fail has the plugin fail all calls with these commands from now on.
func (c meshConf) fail(commands ...string) error {
	return os.WriteFile(c.failing(), []byte(strings.Join(commands, " ")), 0o600)
}

func runMesh() {
	call := func(args *skel.CmdArgs) error {
		var c meshConf
		if err := json.Unmarshal(args.StdinData, &c); err != nil {
			return err
		}
		command := os.Getenv("CNI_COMMAND")
		if err := c.record(command); err != nil {
			return err
		}
		if command != "ADD" {
			return nil
		}
		if err := version.ParsePrevResult(&c.PluginConf); err != nil {
			return err
		}
		if c.PrevResult == nil {
			return errors.New("no prevResult: another plugin must come first")
		}
		return types.PrintResult(c.PrevResult, c.CNIVersion)
	}
	skel.PluginMainFuncs(skel.CNIFuncs{Add: call, Check: call, Del: call, GC: call, Status: call}, version.All, mesh)
}

// record logs a command, and returns an error if it is to fail.
func (c meshConf) record(command string) error {
	log, err := os.OpenFile(c.Log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	if _, err := fmt.Fprintln(log, command); err != nil {
		return err
	}
	failing, err := os.ReadFile(c.failing())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if strings.Contains(string(failing), command) {
		return fmt.Errorf("the mesh's agent does not answer %s", command)
	}
	return nil
}

// installMesh appends the plugin to weftd's conflist, as istio-cni's installer does, and returns when
// containerd uses it. It goes at the end of the test.
func (m *machine) installMesh(t *testing.T) meshConf {
	t.Helper()
	c := meshConf{Log: filepath.Join(t.TempDir(), "calls")}
	m.editConflist(t, func(plugins []any) []any { return append(plugins, c.entry()) })
	t.Cleanup(func() {
		m.editConflist(t, func(plugins []any) []any {
			return slices.DeleteFunc(plugins, func(p any) bool { return p.(map[string]any)["type"] == mesh })
		})
	})
	m.awaitNetwork(t, "weft", mesh)
	return c
}

func (m *machine) editConflist(t *testing.T, change func(plugins []any) []any) {
	t.Helper()
	path := filepath.Join(m.ConfDir(), "10-weft.conflist")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var list map[string]any
	if err := json.Unmarshal(content, &list); err != nil {
		t.Fatal(err)
	}
	list["plugins"] = change(list["plugins"].([]any))
	if content, err = json.Marshal(list); err != nil {
		t.Fatal(err)
	}
	if err := renameio.WriteFile(path, content, 0o600, renameio.WithTempDir(m.ConfDir())); err != nil {
		t.Fatal(err)
	}
}

// Another program's entry stays while weftd starts anew and changes its own entries, and goes when
// that program removes it.
func TestMeshStaysInConflist(t *testing.T) {
	begin(t)
	c := node1.installMesh(t)
	tuning := filepath.Join(binDir, "tuning")
	if err := os.Rename(tuning, tuning+".off"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Rename(tuning+".off", tuning); err != nil {
			t.Error(err)
		}
	})
	node1.stopWeftd(t)
	node1.startWeftd(t)
	conflist, err := os.ReadFile(filepath.Join(node1.ConfDir(), "10-weft.conflist"))
	if err != nil || strings.Contains(string(conflist), `"type": "tuning"`) || !strings.Contains(string(conflist), mesh) {
		t.Errorf("weftd keeps a plugin that is gone, or drops the mesh's: %s, %v", conflist, err)
	}
	p := run(t, node1, withEverything(node1.sandbox("pod")))
	expectReached(t, node2, "with the mesh", p.addrs)
	if err := p.remove(t.Context()); err != nil {
		t.Error(err)
	}
	if got := c.called(); !slices.Contains(got, "ADD") || !slices.Contains(got, "DEL") {
		t.Errorf("the mesh's plugin was called with %s", got)
	}
}

// A plugin behind weft-cni that fails DEL delays the release of the pod's address until DEL succeeds,
// or until the pod's network namespace is gone.
func TestPluginBehindFailsDEL(t *testing.T) {
	begin(t)
	c := node1.installMesh(t)
	p := run(t, node1, withEverything(node1.sandbox("pod")))
	if err := c.fail("DEL"); err != nil {
		t.Fatal(err)
	}
	if err := p.remove(t.Context()); err == nil {
		t.Error("the pod is removed though a plugin fails")
	}
	p.lease(t)
	if err := c.fail(); err != nil {
		t.Fatal(err)
	}
	if err := p.remove(t.Context()); err != nil {
		t.Error(err)
	}
}

// A pod whose ADD and DEL both fail holds its address as long as it has a network namespace:
// containerd 2 removes that, and forgets the pod (issue 12130 of containerd); containerd 1.6 keeps
// both until kubelet's next attempt.
func TestPluginBehindFailsADDAndDEL(t *testing.T) {
	begin(t)
	c := node1.installMesh(t)
	for _, namespaceGone := range []bool{false, true} {
		if err := c.fail("ADD", "DEL"); err != nil {
			t.Fatal(err)
		}
		if _, err := node1.runPod(t.Context(), node1.sandbox(fmt.Sprint("pod-", namespaceGone))); err == nil || !strings.Contains(err.Error(), "the mesh's agent does not answer") {
			t.Fatalf("the pod starts, or the reason is not named: %v", err)
		}
		leases, err := node1.leases()
		if err != nil || len(leases) != 1 {
			t.Fatalf("leased are %v, %v", leases, err)
		}
		if namespaceGone {
			if _, err := node1.run(t.Context(), "ip", "netns", "del", filepath.Base(leases[0].NetNS)); err != nil {
				t.Fatal(err)
			}
			eventually(t, "weft to free the address", func(ctx context.Context) error {
				if _, err := node1.run(ctx, filepath.Join(binDir, "weft"), "ipam", "gc", "--state-dir", filepath.Join(node1.Dir(), "state")); err != nil {
					return err
				}
				leases, err := node1.leases()
				if len(leases) > 0 {
					err = fmt.Errorf("leased are %v", leases)
				}
				return err
			})
		}
		if err := c.fail(); err != nil {
			t.Fatal(err)
		}
		if err := node1.removePods(t.Context()); err != nil {
			t.Error(err)
		}
		node1.expectNothingLeft(t.Context(), t)
	}
}
