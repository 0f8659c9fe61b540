package scale

import (
	"context"
	"sync"

	"weft/control"
	"weft/internal/testnet"
)

// fileDirectory is the nodes.yaml of the one real node.
type fileDirectory struct {
	node *testnet.Node

	mu      sync.Mutex
	entries []testnet.NodeEntry // the real node's own first
	at      map[string]int      // by name
}

func newFileDirectory(node *testnet.Node) *fileDirectory {
	return &fileDirectory{node: node, entries: []testnet.NodeEntry{node.Entry()}, at: make(map[string]int)}
}

func (d *fileDirectory) fill(_ context.Context, nodes []control.Node) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range nodes {
		d.at[n.Name] = len(d.entries)
		d.entries = append(d.entries, listed(n))
	}
	return d.node.SetNodes(d.entries)
}

func (d *fileDirectory) move(_ context.Context, n control.Node) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries[d.at[n.Name]] = listed(n)
	return d.node.SetNodes(d.entries)
}

// listed is a node as nodes.yaml lists it.
func listed(n control.Node) testnet.NodeEntry {
	return testnet.NodeEntry{Name: n.Name, Endpoint: n.Endpoint, PodCIDRs: n.PodCIDRs, Key: n.Key.String()}
}

func (d *fileDirectory) close() error { return nil }
