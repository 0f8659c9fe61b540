package scale

import (
	"context"

	"golang.org/x/sync/errgroup"

	"weft/control"
)

// The sources, as results name them.
const (
	Etcd       = "etcd"
	Kubernetes = "kubernetes"
	File       = "file"
)

// Sources are all of them, in the order of tables.
func Sources() []string { return []string{Etcd, Kubernetes, File} }

// directory is where a source finds the nodes, as nodes write it. Each method returns when
// what it has written is acknowledged. Its methods may be called concurrently.
type directory interface {
	// fill lists nodes that are there before anything is measured.
	fill(ctx context.Context, nodes []control.Node) error

	// move says that a node that is listed has another endpoint and key.
	move(ctx context.Context, n control.Node) error

	// close releases what the directory has opened, and returns what went wrong meanwhile.
	close() error
}

// registry is a directory in which each node writes itself.
type registry interface {
	directory
	join(ctx context.Context, n control.Node) error
	leave(ctx context.Context, n control.Node) error
}

// writers is how many nodes write at the same time, when all do.
const writers = 16

// each calls do for all nodes, for some at once.
func each(ctx context.Context, nodes []control.Node, do func(context.Context, control.Node) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for _, n := range nodes {
		group.Go(func() error { return do(ctx, n) })
	}
	return group.Wait()
}
