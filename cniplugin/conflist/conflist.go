// Package conflist keeps the network configuration list by which container runtimes call weft-cni,
// and the plugins behind it.
package conflist

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"

	"github.com/google/renameio/v2"

	"weft/cniplugin"
	"weft/internal/config"
)

// cniVersions are the versions of the CNI specification that weft-cni speaks, in order.
var cniVersions = cniplugin.Versions.SupportedVersions()

// networkList is the network configuration list of the CNI specification, version 1.1.0.
//
// A runtime whose libcni is older than 1.2, as containerd 1.6's, reads only cniVersion,
// and can't parse results of a version that it does not know. So cniVersion is at most
// 1.0.0, and 1.1.0 is only among cniVersions: newer runtimes take the highest of both
// that they know. All plugins of the list are called with the one that was taken, and
// refuse it if they don't speak it.
type networkList struct {
	CNIVersion  string            `json:"cniVersion"`
	CNIVersions []string          `json:"cniVersions"`
	Name        string            `json:"name"`
	Plugins     []json.RawMessage `json:"plugins"`
}

// plugin is an entry that weftd makes. Capabilities are what the runtime may ask of it for
// a pod.
type plugin struct {
	Type         string          `json:"type"`
	RunDir       string          `json:"runDir,omitempty"`
	StateDir     string          `json:"stateDir,omitempty"`
	SNAT         bool            `json:"snat,omitempty"`
	Capabilities map[string]bool `json:"capabilities,omitempty"`

	// Chained, in weft-cni's entry alone, is the types of the entries behind it that weftd
	// made. Every other entry there is foreign.
	Chained []string `json:"chained,omitzero"`
}

// forOldRuntimes is the newest version that every runtime in use understands.
const forOldRuntimes = "1.0.0"

func newList(c config.Config, chain []chained) networkList {
	own := plugin{Type: cniplugin.Type, RunDir: c.RunDir, StateDir: c.StateDir, Capabilities: map[string]bool{"ips": true, "mac": true}, Chained: []string{}}
	list := networkList{CNIVersions: cniVersions, Name: c.CNI.Name, Plugins: []json.RawMessage{nil}}
	for _, p := range chain {
		if !p.foreign {
			own.Chained = append(own.Chained, p.name)
		}
		if p.versions != nil {
			list.CNIVersions = common(list.CNIVersions, p.versions)
		}
		list.Plugins = append(list.Plugins, p.entry)
	}
	list.Plugins[0] = encode(own)
	for _, v := range list.CNIVersions {
		if v <= forOldRuntimes {
			list.CNIVersion = v
		}
	}
	return list
}

// common returns what is in both, in the order of a.
func common(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(v string) bool { return !slices.Contains(b, v) })
}

func encode(p plugin) json.RawMessage {
	data, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and booleans
	}
	return data
}

func pluginEntry(name string) json.RawMessage {
	switch name {
	case "portmap":
		// Without snat a pod does not reach itself by its own hostPort.
		return encode(plugin{Type: name, SNAT: true, Capabilities: map[string]bool{"portMappings": true}})
	case "bandwidth":
		return encode(plugin{Type: name, Capabilities: map[string]bool{"bandwidth": true}})
	}
	return encode(plugin{Type: name})
}

// foreignEntry is an entry of the conflist that another program made.
type foreignEntry struct {
	name  string
	entry json.RawMessage

	// refused is why it can't stay; empty if it can.
	refused string
}

// foreignEntries returns the entries of a conflist that weftd did not make, in their order.
// A service mesh chains its own plugin behind weft's this way.
func foreignEntries(content []byte) ([]foreignEntry, error) {
	var list networkList
	if err := json.Unmarshal(content, &list); err != nil {
		return nil, err
	}
	entries := make([]plugin, len(list.Plugins))
	at := -1
	for i, p := range list.Plugins {
		// One that is no object, or has no type, can't be a runtime's either.
		_ = json.Unmarshal(p, &entries[i])
		if at < 0 && entries[i].Type == cniplugin.Type {
			at = i
		}
	}
	var own []string
	if at >= 0 {
		own = slices.Clone(entries[at].Chained)
	}
	var foreign []foreignEntry
	for i, p := range list.Plugins {
		name := entries[i].Type
		f := foreignEntry{name: name, entry: p}
		ours := slices.Index(own, name)
		switch {
		case i == at:
			continue
		case i < at:
			f.refused = "it comes before weft-cni, which makes the pod's interface; chain it after weft-cni"
		case ours >= 0:
			own = slices.Delete(own, ours, ours+1)
			continue
		case own == nil && sameJSON(p, pluginEntry(name)):
			continue // by a weftd that did not yet write which entries are its own
		case name == cniplugin.Type:
			f.refused = "weft-cni must be called only once"
		default:
			if err := cniplugin.CheckPluginName(name); err != nil {
				f.refused = err.Error()
			}
		}
		foreign = append(foreign, f)
	}
	return foreign, nil
}

// sameJSON reports whether two texts are the same JSON, however they are written.
func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

// Writer keeps the conflist as the configuration and the plugins at hand want it.
// It stays when weftd ends: without it containerd could not remove pods, which needs no
// weftd. weft-cni itself refuses to add any until weftd is back.
type Writer struct {
	config config.Config

	mu      sync.Mutex // guards what follows
	chain   *chain
	foreign []foreignEntry // as last read
}

// New returns the writer for a configuration.
func New(c config.Config, log *slog.Logger) *Writer {
	return &Writer{config: c, chain: newChain(c.CNI, log)}
}

// Path returns the file that the writer keeps.
func (w *Writer) Path() string { return filepath.Join(w.config.CNI.ConfDir, config.ConflistName) }

// Write has the container runtime add pods, and by which plugins. Entries of
// other programs stay, behind weftd's. If the file says all that already, nothing is
// written: runtimes and other programs watch the folder. Only the rename makes
// the file visible, so that no runtime reads half of it.
func (w *Writer) Write(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	there, err := os.ReadFile(w.Path())
	if err == nil {
		// A file that can't be parsed may be half written by another program.
		if foreign, err := foreignEntries(there); err == nil {
			w.foreign = w.chain.admit(foreign)
		}
	}
	usable := w.chain.look(ctx, w.foreign)
	if ctx.Err() != nil { // so the plugins could not answer
		return ctx.Err()
	}
	data, err := json.MarshalIndent(newList(w.config, usable), "", "  ")
	if err != nil {
		return fmt.Errorf("encode the conflist: %w", err)
	}
	data = append(data, '\n')
	if sameJSON(there, data) {
		return nil
	}
	if err := os.MkdirAll(w.config.CNI.ConfDir, 0o755); err != nil {
		return fmt.Errorf("make the folder of the conflist: %w", err)
	}
	// containerd 1.6 reads the folder again when a file in it is written or renamed away,
	// but not when one appears, as it does when it is renamed from another folder.
	if err := renameio.WriteFile(w.Path(), data, 0o644, renameio.WithTempDir(w.config.CNI.ConfDir)); err != nil {
		return fmt.Errorf("write the conflist: %w", err)
	}
	return nil
}
