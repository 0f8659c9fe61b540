// Package snapshot keeps the last good State on disk, for a start while the control source
// is away.
package snapshot

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/google/renameio/v2"

	"weft/control"
	"weft/peer"
)

// Name is the snapshot's, in the state directory.
const Name = "nodes.snapshot"

// mostBytes is far more than the largest cluster needs: 150,000 prefixes are 4 MB.
const mostBytes = 64 << 20

// content is what a snapshot's second line holds. Its first line is the SHA-256 of it.
type content struct {
	Version    int            `json:"version"`
	Identity   string         `json:"identity"`
	Origin     string         `json:"origin"`
	Registered bool           `json:"registered"`
	Nodes      []control.Node `json:"nodes"`

	Gone map[string]peer.Fingerprint `json:"gone,omitempty"`
}

const version = 1

// Write replaces the snapshot at path, of the cluster with an identity (control.Registry). A
// crash at any time leaves the old one or the new one.
func Write(path, identity string, state control.State) error {
	body, err := json.Marshal(content{version, identity, state.Origin, state.Registered, state.Nodes, state.Gone})
	if err != nil {
		return fmt.Errorf("write the snapshot of the nodes: %w", err)
	}
	sum := sha256.Sum256(body)
	data := append(hex.AppendEncode(nil, sum[:]), '\n')
	data = append(append(data, body...), '\n')
	if err := renameio.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("write the snapshot of the nodes: %w", err)
	}
	return nil
}

// Read returns the State that Write wrote to path, if it came from the source that origin
// names, and is of the cluster with this identity. The error is fs.ErrNotExist if there is none.
func Read(path, identity, origin string) (control.State, error) {
	info, err := os.Stat(path)
	if err != nil {
		return control.State{}, fmt.Errorf("read the snapshot of the nodes: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > mostBytes {
		return control.State{}, fmt.Errorf("%s is not a snapshot of the nodes; remove it", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return control.State{}, fmt.Errorf("read the snapshot of the nodes: %w", err)
	}
	c, err := parse(data)
	if err != nil {
		return control.State{}, fmt.Errorf("%s: %w; it is not used", path, err)
	}
	if c.Origin != origin {
		return control.State{}, fmt.Errorf("%s: the snapshot is of %s, and not of %s; it is not used", path, c.Origin, origin)
	}
	if c.Identity != identity {
		return control.State{}, fmt.Errorf("%s: the snapshot is of another cluster, or of this one with another CA or at other addresses; it is not used", path)
	}
	state := control.State{Origin: origin, Registered: c.Registered, Nodes: c.Nodes, Gone: c.Gone}
	for i := range state.Nodes {
		state.Nodes[i].Origin = path
	}
	return state, nil
}

func parse(data []byte) (c content, err error) {
	sum, body, _ := bytes.Cut(bytes.TrimSuffix(data, []byte{'\n'}), []byte{'\n'})
	if want := sha256.Sum256(body); string(sum) != hex.EncodeToString(want[:]) {
		return c, errors.New("the snapshot is damaged")
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return c, fmt.Errorf("parse the snapshot: %w", err)
	}
	if c.Version != version {
		return c, fmt.Errorf("the snapshot has version %d, and not %d", c.Version, version)
	}
	return c, nil
}
