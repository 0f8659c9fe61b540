package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"weft/internal/config"
)

// conflistName sorts before what distributions install: a runtime takes the first.
const conflistName = "10-weft.conflist"

// conflist is the network configuration list of the CNI specification, version 1.1.0.
type conflist struct {
	CNIVersion  string   `json:"cniVersion"`
	CNIVersions []string `json:"cniVersions"`
	Name        string   `json:"name"`
	Plugins     []plugin `json:"plugins"`
}

type plugin struct {
	Type     string `json:"type"`
	RunDir   string `json:"runDir"`
	StateDir string `json:"stateDir"`
}

// writeConflist tells the container runtime that pods can be wired. Only the rename
// makes the file visible, so that no runtime reads half of it.
func writeConflist(c config.Config) error {
	data, err := json.MarshalIndent(conflist{
		CNIVersion:  "1.1.0",
		CNIVersions: []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"},
		Name:        c.CNI.Name,
		Plugins:     []plugin{{Type: "weft-cni", RunDir: c.RunDir, StateDir: c.StateDir}},
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the conflist: %w", err)
	}
	if err := os.MkdirAll(c.CNI.ConfDir, 0o755); err != nil {
		return fmt.Errorf("make the folder of the conflist: %w", err)
	}
	if err := renameio.WriteFile(filepath.Join(c.CNI.ConfDir, conflistName), append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the conflist: %w", err)
	}
	return nil
}

// removeConflist has the runtime wait with new pods until weftd is back.
func removeConflist(c config.Config) error {
	err := os.Remove(filepath.Join(c.CNI.ConfDir, conflistName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the conflist: %w", err)
	}
	return nil
}
