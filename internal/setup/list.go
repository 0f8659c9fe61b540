package setup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"weft/control"
	"weft/control/file"
	"weft/internal/config"
	"weft/internal/nodekey"
	"weft/internal/owned"
	"weft/internal/strict/yamltree"
	"weft/peer"
)

// identify returns what this node knows of itself and of its cluster.
func identify(c config.Config) (control.Options, error) {
	options := control.Options{Node: c.Node, ClusterCIDRs: c.ClusterCIDRs}
	if c.Encapsulation != config.EncapsulationSealed {
		return options, nil
	}
	var err error
	options.Key, err = nodekey.LoadFingerprint(c.KeyFile)
	return options, err
}

// AddNode adds a node to the list of nodes of this one. The list is replaced as a whole, and only by
// one that weftd accepts. Added is false if the list has the node already.
func AddNode(c config.Config, n control.Node) (added bool, err error) {
	options, err := identify(c)
	if err != nil {
		return false, err
	}
	_, added, err = update(c.Control.File, options, false, func([]control.Node) (control.Node, error) { return n, nil })
	return added, err
}

// update adds the node that choose returns to a list, unless the list has it: the same name with the
// same key and endpoint. It returns the list as it is then.
func update(path string, options control.Options, dryRun bool, choose func(listed []control.Node) (control.Node, error)) (text []byte, added bool, err error) {
	unlock, err := lock(path)
	if err != nil {
		return nil, false, err
	}
	defer unlock()
	if err := owned.Check(path); err != nil {
		return nil, false, fmt.Errorf("the list of nodes is not trusted: %w", err)
	}
	before, err := yamltree.ReadFile(path)
	if err != nil {
		return nil, false, fmt.Errorf("read the list of nodes: %w", err)
	}
	state, err := file.Parse(path, before)
	if err != nil {
		return nil, false, err
	}
	n, err := choose(state.Nodes)
	if err != nil {
		return nil, false, err
	}
	for _, listed := range state.Nodes {
		switch {
		case listed.Name != n.Name:
		case listed.Key == n.Key && listed.Endpoint == n.Endpoint:
			return before, false, nil
		default:
			return nil, false, fmt.Errorf("%s: node %s is in the list already, at %s and with %s; if it is the same node, correct its endpoint and key there on every node, and otherwise give one of the two another name", listed.Origin, n.Name, listed.Endpoint, keyOf(listed))
		}
	}
	text, err = file.Add(path, before, n)
	if err != nil {
		return nil, false, err
	}
	if err := check(path, text, options); err != nil {
		return nil, false, fmt.Errorf("%s stays as it is, since weftd would reject it with node %s: %w", path, n.Name, err)
	}
	if dryRun {
		return text, true, nil
	}
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, false, err
	}
	if err := renameio.WriteFile(target, text, 0o644, renameio.WithExistingPermissions()); err != nil {
		return nil, false, fmt.Errorf("write the list of nodes: %w", err)
	}
	return text, true, nil
}

func keyOf(n control.Node) string {
	if n.Key == (peer.Fingerprint{}) {
		return "no key"
	}
	return "the key " + n.Key.String()
}

// check returns why weftd would reject a list of nodes.
func check(path string, text []byte, options control.Options) error {
	state, err := file.Parse(path, text)
	if err != nil {
		return err
	}
	_, err = control.NewPlan(state, options)
	return err
}

// lock keeps other commands from changing a list at the same time, until unlock.
func lock(path string) (unlock func(), err error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		dir.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another command changes %s just now; try again", path)
		}
		return nil, fmt.Errorf("lock %s: %w", filepath.Dir(path), err)
	}
	return func() { dir.Close() }, nil
}
