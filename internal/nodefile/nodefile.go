// Package nodefile is weftd's description of its node for weft-cni: a small JSON file
// in the run directory, replaced as a whole, readable while weftd is stopped.
package nodefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"weft/internal/nftable"
)

// Name is the file's name in the run directory.
const Name = "node.json"

// ProvenName is the name, in the run directory, of the file in which weftd keeps the addresses
// that peers have proven. It is not for the plugin.
const ProvenName = "proven.json"

// Node is what the plugin must know to wire a pod.
type Node struct {
	Name string `json:"name"`

	// Guard is the guard table that stood when weftd wrote this. No pod may be added
	// unless the kernel has that very table, whether or not weftd runs: see nftable.Of.
	Guard nftable.Identity `json:"guard"`

	// PodCIDRs are the ranges that this node's pods get their addresses from.
	PodCIDRs []netip.Prefix `json:"podCIDRs"`

	// Addresses are the node's own, inside PodCIDRs. No pod may get one.
	Addresses []netip.Addr `json:"addresses"`

	// Reserved is what else no pod may get.
	Reserved []netip.Prefix `json:"reserved,omitempty"`

	// CooldownSeconds is how long a released address stays unused. Its former name stands in
	// the file: a plugin and a weftd may be of different versions.
	CooldownSeconds int `json:"restSeconds"`

	// TUN is the name of the device that leads to the other nodes' pods.
	TUN string `json:"tun"`

	// MTU is the largest packet in bytes that TUN takes; pods' interfaces get the same.
	MTU int `json:"mtu"`

	// GSOMaxSize and GSOMaxSegs bound a super-packet, in bytes and in segments, so
	// that it fits one datagram run with its encapsulation. 0 leaves the kernel's own bound.
	GSOMaxSize int `json:"gsoMaxSize,omitempty"`
	GSOMaxSegs int `json:"gsoMaxSegs,omitempty"`
}

// ErrAbsent says that weftd has not yet written the file since the node booted.
var ErrAbsent = errors.New("weftd has not described this node yet; is weftd running?")

// Read returns the node that weftd described in runDir, or an error that wraps ErrAbsent.
func Read(runDir string) (Node, error) {
	path := filepath.Join(runDir, Name)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Node{}, fmt.Errorf("%s: %w", path, ErrAbsent)
	}
	if err != nil {
		return Node{}, fmt.Errorf("read the node's description: %w", err)
	}
	var n Node
	if err := json.Unmarshal(data, &n); err != nil {
		return Node{}, fmt.Errorf("parse %s: %w", path, err)
	}
	return n, nil
}

// Write replaces the description in runDir, which must exist, unless it says the same already.
func Write(runDir string, n Node) error {
	data, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the node's description: %w", err)
	}
	data = append(data, '\n')
	path := filepath.Join(runDir, Name)
	if before, err := os.ReadFile(path); err == nil && bytes.Equal(before, data) {
		return nil
	}
	if err := renameio.WriteFile(path, data, 0o644); err != nil {
		return fmt.Errorf("write the node's description: %w", err)
	}
	return nil
}

// Remove removes the description from runDir, so that no pod is added. It may be absent.
func Remove(runDir string) error {
	if err := os.Remove(filepath.Join(runDir, Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the node's description: %w", err)
	}
	return nil
}
