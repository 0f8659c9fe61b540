package wiring

import (
	"errors"
	"fmt"

	"weft/internal/marks"
	"weft/internal/nftable"
	"weft/internal/nodefile"
)

// ReadNode returns weftd's description of this node.
func ReadNode(runDir string) (nodefile.Node, error) {
	node, err := nodefile.Read(runDir)
	if err != nil {
		return nodefile.Node{}, err
	}
	if len(node.PodCIDRs) == 0 || node.TUN == "" || node.MTU <= 0 {
		return nodefile.Node{}, fmt.Errorf("%s in %s lacks podCIDRs, tun or mtu: restart weftd, which writes it again", nodefile.Name, runDir)
	}
	return node, nil
}

// ReadGuarded is ReadNode for a node that the guard protects: weftd has made its table since
// the node booted, and the kernel has that table now, whether or not weftd runs.
func ReadGuarded(runDir string) (nodefile.Node, error) {
	node, err := ReadNode(runDir)
	if err != nil {
		return nodefile.Node{}, err
	}
	id, err := nftable.Of(nftable.Inet, marks.Table)
	if err == nil && (id != node.Guard || id == nftable.Identity{}) {
		err = fmt.Errorf("nftables table inet %s is not the one that weftd made: it has %d rules (%q) instead of %d (%q)",
			marks.Table, id.Rules, id.Comment, node.Guard.Rules, node.Guard.Comment)
	}
	if err != nil {
		return nodefile.Node{}, fmt.Errorf("the guard table is not in place, and pods' packets could leave in clear: %w; start weftd, which makes it", err)
	}
	return node, nil
}

// CheckNamespace returns why the network namespace of the calling thread is not the one of
// the node that weftd described in runDir, or nil, also if weftd has described none.
func CheckNamespace(runDir string) error {
	node, err := nodefile.Read(runDir)
	if errors.Is(err, nodefile.ErrAbsent) {
		return nil
	}
	if err != nil {
		return err
	}
	if node.Guard == (nftable.Identity{}) { // by a former release of weftd
		return nil
	}
	if id, err := nftable.Of(nftable.Inet, marks.Table); err != nil || id != node.Guard {
		return fmt.Errorf("weftd's guard table is not in this network namespace, so pods may be attached in another; " +
			"run this in the node's namespace, or start weftd, which makes the table")
	}
	return nil
}
