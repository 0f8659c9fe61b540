package conflist

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"weft/internal/config"
)

// edit changes the entries of the conflist as another program would.
func (r *rig) edit(change func([]json.RawMessage) []json.RawMessage) {
	r.t.Helper()
	content, err := os.ReadFile(r.Path())
	if err != nil {
		r.t.Fatal(err)
	}
	var list map[string]json.RawMessage
	var entries []json.RawMessage
	if err := json.Unmarshal(content, &list); err != nil {
		r.t.Fatal(err)
	}
	if err := json.Unmarshal(list["plugins"], &entries); err != nil {
		r.t.Fatal(err)
	}
	if list["plugins"], err = json.Marshal(change(entries)); err != nil {
		r.t.Fatal(err)
	}
	if content, err = json.Marshal(list); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(r.Path(), content, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// insert puts entries at a place of the conflist.
func (r *rig) insert(at int, entries ...string) {
	r.edit(func(there []json.RawMessage) []json.RawMessage {
		for i, e := range entries {
			there = slices.Insert(there, at+i, json.RawMessage(e))
		}
		return there
	})
}

// restart goes on as the next weftd does, with another configuration.
func (r *rig) restart(change func(*config.CNI)) {
	c := r.config
	change(&c.CNI)
	r.Writer = New(c, r.chain.log)
}

// Entries that other programs chain behind weft-cni stay, in their order, when weftd changes
// its own entries; and entries that weftd no longer chains go.
func TestForeignEntriesStayInOrder(t *testing.T) {
	const mesh, probe = `{"type":"istio-cni","kubernetes":{"kubeconfig":"/x"},"n":1.50}`, `{"type":"probe"}`
	for _, tt := range []struct {
		name string
		do   func(r *rig)
		want string
	}{
		{"added behind", func(r *rig) { r.insert(2, mesh, probe) }, "weft-cni portmap istio-cni probe"},
		{"added between", func(r *rig) { r.insert(1, probe, mesh) }, "weft-cni portmap probe istio-cni"},
		{"of a type that weftd chains too", func(r *rig) { r.insert(2, `{"type":"portmap","snat":false}`, mesh) }, "weft-cni portmap portmap istio-cni"},
		{"removed by its owner", func(r *rig) {
			r.insert(2, mesh, probe)
			r.conflist()
			r.edit(func(there []json.RawMessage) []json.RawMessage { return slices.Delete(there, 2, 3) })
		}, "weft-cni portmap probe"},
		{"a plugin of weftd's appears", func(r *rig) {
			r.insert(2, mesh)
			r.install("tuning", speaking("1.0.0"))
		}, "weft-cni portmap tuning istio-cni"},
		{"a plugin of weftd's goes", func(r *rig) {
			r.insert(2, mesh)
			_ = os.Remove(r.plugin("portmap"))
		}, "weft-cni istio-cni"},
		{"weftd restarts", func(r *rig) {
			r.insert(2, mesh, probe)
			r.restart(func(*config.CNI) {})
		}, "weft-cni portmap istio-cni probe"},
		{"weftd restarts with another chain", func(r *rig) {
			r.insert(2, mesh)
			r.restart(func(c *config.CNI) { c.Chain, c.Name = []string{"tuning"}, "other" })
		}, "weft-cni istio-cni"},
		{"an extra entry is no longer configured", func(r *rig) {
			r.install("sbr", speaking("1.0.0"))
			r.restart(func(c *config.CNI) { c.Extra = []config.CNIEntry{{Type: "sbr", JSON: `{"type":"sbr","x":1}`}} })
			r.conflist()
			r.insert(3, mesh)
			r.restart(func(c *config.CNI) { c.Extra = nil })
		}, "weft-cni portmap istio-cni"},
		{"the mesh replaces what is configured for it", func(r *rig) {
			r.install("istio-cni", speaking("1.0.0"))
			r.restart(func(c *config.CNI) { c.Extra = []config.CNIEntry{{Type: "istio-cni", JSON: mesh}} })
			r.conflist()
			r.edit(func(there []json.RawMessage) []json.RawMessage {
				return append(there[:2], json.RawMessage(`{"type":"istio-cni","its":"own"}`))
			})
		}, "weft-cni portmap istio-cni"},
		{"weftd is upgraded", func(r *rig) {
			r.edit(func([]json.RawMessage) []json.RawMessage {
				return []json.RawMessage{encode(plugin{Type: "weft-cni"}), pluginEntry("portmap"), pluginEntry("tuning"), json.RawMessage(mesh)}
			})
			r.restart(func(c *config.CNI) { c.Chain = nil })
		}, "weft-cni istio-cni"},
		{"weft-cni's own entry is lost", func(r *rig) {
			r.insert(2, mesh)
			r.edit(func(there []json.RawMessage) []json.RawMessage { return there[1:] })
		}, "weft-cni portmap istio-cni"},
		{"the file is half written", func(r *rig) {
			r.insert(2, mesh)
			r.conflist()
			_ = os.WriteFile(r.Path(), []byte(`{"plugins":[`), 0o600)
		}, "weft-cni portmap istio-cni"},
		{"the file is removed", func(r *rig) {
			r.insert(2, mesh)
			r.conflist()
			_ = os.Remove(r.Path())
		}, "weft-cni portmap istio-cni"},
		{"entries that no runtime takes", func(r *rig) {
			r.insert(2, `{"type":"../x"}`, `{"kind":"x"}`, `7`, mesh, `{"type":"weft-cni"}`)
			r.insert(0, probe)
		}, "weft-cni portmap istio-cni"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newConflistRig(t, "portmap", "tuning")
			r.install("portmap", speaking("0.4.0", "1.0.0"))
			r.conflist()
			tt.do(r)
			for range 2 { // the second time out of what the first has written
				list, _ := r.conflist()
				if got := types(list); got != tt.want {
					t.Errorf("plugins %s, want %s", got, tt.want)
				}
				for _, entry := range list.Plugins {
					if strings.Contains(string(entry), "istio-cni") && !strings.Contains(string(list.Plugins[0]), "istio-cni") && !sameJSON(entry, []byte(mesh)) {
						t.Errorf("the foreign entry has become %s", entry)
					}
				}
			}
			before, _ := os.Stat(r.Path())
			r.conflist()
			if after, _ := os.Stat(r.Path()); !os.SameFile(before, after) {
				t.Error("the file is written again although it says the same")
			}
		})
	}
}

// The conflist offers no version of CNI that a foreign plugin does not speak; one that
// can't be asked is named, and stays.
func TestForeignPluginsBoundTheVersions(t *testing.T) {
	r := newConflistRig(t)
	r.install("old", speaking("0.3.1", "0.4.0"))
	r.conflist()
	r.insert(1, `{"type":"old"}`, `{"type":"absent"}`)
	list, log := r.conflist()
	if got := strings.Join(list.CNIVersions, " "); got != "0.3.1 0.4.0" || list.CNIVersion != "0.4.0" {
		t.Errorf("version %s of %s", list.CNIVersion, got)
	}
	if got := types(list); got != "weft-cni old absent" {
		t.Errorf("plugins %s", got)
	}
	if !strings.Contains(log, `msg="foreign CNI plugin may not work" plugin=absent`) {
		t.Errorf("the log does not name it: %s", log)
	}
	if _, log := r.conflist(); log != "" {
		t.Errorf("logged again: %s", log)
	}
}

// An entry with keys of its own is chained where the configuration says so.
func TestExtraEntriesAreChained(t *testing.T) {
	r := newConflistRig(t, "portmap")
	r.install("portmap", speaking("1.0.0"))
	const entry = `{"type":"sbr","table":100,"deep":{"on":true}}`
	r.restart(func(c *config.CNI) {
		c.Extra = []config.CNIEntry{{Type: "sbr", JSON: entry}, {Type: "absent", JSON: `{"type":"absent"}`}}
	})
	r.install("sbr", speaking("0.4.0", "1.0.0"))
	list, log := r.conflist()
	if got := types(list); got != "weft-cni portmap sbr" || !sameJSON(list.Plugins[2], []byte(entry)) {
		t.Errorf("plugins %s: %s", got, list.Plugins)
	}
	expectWords(t, log, "level=WARN", "plugin=absent", "cni.extra")
}
