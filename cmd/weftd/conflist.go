package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/google/renameio/v2"

	"weft/cniplugin"
	"weft/internal/config"
)

// conflistName sorts before what distributions install: a runtime takes the first.
const conflistName = "10-weft.conflist"

// cniVersions are the versions of the CNI specification that weft-cni speaks, in order.
var cniVersions = cniplugin.Versions.SupportedVersions()

// conflist is the network configuration list of the CNI specification, version 1.1.0.
//
// A runtime whose libcni is older than 1.2, as containerd 1.6's, reads only cniVersion,
// and can't parse results of a version that it does not know. So cniVersion is at most
// 1.0.0, and 1.1.0 is only among cniVersions: newer runtimes take the highest of both
// that they know. All plugins of the list are called with the one that was taken, and
// refuse it if they don't speak it.
type conflist struct {
	CNIVersion  string   `json:"cniVersion"`
	CNIVersions []string `json:"cniVersions"`
	Name        string   `json:"name"`
	Plugins     []plugin `json:"plugins"`
}

// plugin is an entry of the list. Capabilities are what the runtime may ask of it for a
// pod.
type plugin struct {
	Type         string          `json:"type"`
	RunDir       string          `json:"runDir,omitempty"`
	StateDir     string          `json:"stateDir,omitempty"`
	SNAT         bool            `json:"snat,omitempty"`
	Capabilities map[string]bool `json:"capabilities,omitempty"`
}

// forOldRuntimes is the newest version that every runtime in use understands.
const forOldRuntimes = "1.0.0"

func newConflist(c config.Config, chain []chained) conflist {
	list := conflist{CNIVersions: cniVersions, Name: c.CNI.Name, Plugins: []plugin{
		{Type: cniplugin.Type, RunDir: c.RunDir, StateDir: c.StateDir, Capabilities: map[string]bool{"ips": true, "mac": true}},
	}}
	for _, p := range chain {
		list.CNIVersions = common(list.CNIVersions, p.versions)
		list.Plugins = append(list.Plugins, pluginEntry(p.name))
	}
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

func pluginEntry(name string) plugin {
	switch name {
	case "portmap":
		// Without snat a pod does not reach itself by its own hostPort.
		return plugin{Type: name, SNAT: true, Capabilities: map[string]bool{"portMappings": true}}
	case "bandwidth":
		return plugin{Type: name, Capabilities: map[string]bool{"bandwidth": true}}
	}
	return plugin{Type: name}
}

// conflistWriter keeps the conflist as the configuration and the plugins at hand want it.
// It stays when weftd ends: without it containerd could not remove pods, which needs no
// weftd. weft-cni itself refuses to add any until weftd is back.
type conflistWriter struct {
	config config.Config

	mu    sync.Mutex // guards what follows
	chain *chain
}

func newConflistWriter(c config.Config, log *slog.Logger) *conflistWriter {
	return &conflistWriter{config: c, chain: newChain(c.CNI, log)}
}

func (w *conflistWriter) path() string { return filepath.Join(w.config.CNI.ConfDir, conflistName) }

// write tells the container runtime that pods can be wired, and by which plugins. If it
// knows that already, nothing is written: runtimes watch the folder. Only the rename makes
// the file visible, so that no runtime reads half of it.
func (w *conflistWriter) write(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	usable := w.chain.look(ctx)
	if ctx.Err() != nil { // so the plugins could not answer
		return ctx.Err()
	}
	data, err := json.MarshalIndent(newConflist(w.config, usable), "", "  ")
	if err != nil {
		return fmt.Errorf("encode the conflist: %w", err)
	}
	data = append(data, '\n')
	if there, err := os.ReadFile(w.path()); err == nil && bytes.Equal(there, data) {
		return nil
	}
	if err := os.MkdirAll(w.config.CNI.ConfDir, 0o755); err != nil {
		return fmt.Errorf("make the folder of the conflist: %w", err)
	}
	// containerd 1.6 reads the folder again when a file in it is written or renamed away,
	// but not when one appears, as it does when it is renamed from another folder.
	if err := renameio.WriteFile(w.path(), data, 0o644, renameio.WithTempDir(w.config.CNI.ConfDir)); err != nil {
		return fmt.Errorf("write the conflist: %w", err)
	}
	return nil
}
