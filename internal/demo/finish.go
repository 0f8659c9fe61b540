package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"weft/internal/testnet"
)

// finish removes everything, or leaves it running, when all is shown or the demo
// has failed. With the end of ctx, the removal has begun already.
func (d *demo) finish(ctx context.Context) error {
	if d.options.keep && ctx.Err() == nil && len(d.net.Nodes()) > 0 {
		return d.keep()
	}
	d.heading(len(steps)+1, "Clean up")
	started := time.Now()
	d.servers.stopAll()
	if err := d.net.Close(); err != nil {
		return err
	}
	left, err := d.net.Leftovers(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("left behind: %s; `make demo-clean` tries again", strings.Join(left, ", "))
	}
	d.done(time.Since(started), "no namespace, process or file is left")
	d.gap()
	d.line("%s", d.paint(bold, fmt.Sprintf("It took %.0f s.", time.Since(d.started).Seconds())))
	return nil
}

func (d *demo) keep() error {
	if err := d.net.Keep(); err != nil {
		return fmt.Errorf("can't leave it running: %w", err)
	}
	d.heading(len(steps)+1, "It keeps running")
	node := d.net.Nodes()[0]
	enter := "ip netns exec " + d.net.Name()
	for _, hint := range [][2]string{
		{"ip netns", "lists the namespaces"},
		{enter + "-node1 ip route", "a node's routes"},
		{enter + "-a1 bash", "a shell in a pod"},
		{filepath.Join(d.options.bin, "weft") + " --socket " + node.Socket() + " status", "a daemon's state"},
		{"ls " + node.Dir(), "its files and log"},
		{"make demo-clean", "removes it all"},
	} {
		d.line("%s  %s", padRight(hint[0], 62), d.paint(faint, hint[1]))
	}
	return nil
}

// clean removes what demos have left by --keep, or by being killed.
func clean(ctx context.Context, s *screen) error {
	swept, err := testnet.Sweep(ctx, prefix)
	if err != nil {
		return err
	}
	if len(swept) == 0 {
		s.ok("nothing to remove")
		return nil
	}
	s.ok("removed %s", strings.Join(swept, ", "))
	return nil
}
