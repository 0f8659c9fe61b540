package stage

import (
	"context"
	"fmt"
	"strings"
	"time"

	"weft/internal/testnet"
)

// finish removes everything, or leaves it running, when all is shown or the demo
// has failed. With the end of ctx, the removal has begun already.
func (d *Demo) finish(ctx context.Context) error {
	if d.Keep && ctx.Err() == nil && len(d.Net.Nodes()) > 0 {
		return d.keepRunning(ctx)
	}
	d.heading(len(d.Steps)+1, "Clean up")
	started := time.Now()
	if d.Stop != nil {
		d.Stop()
	}
	if err := d.Net.Close(); err != nil {
		return err
	}
	left, err := d.Net.Leftovers(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("left behind: %s; `make demo-clean` tries again", strings.Join(left, ", "))
	}
	d.Done(time.Since(started), "no namespace, process or file is left")
	d.Gap()
	d.Line("%s", d.Paint(Bold, fmt.Sprintf("It took %.0f s.", time.Since(d.started).Seconds())))
	return nil
}

func (d *Demo) keepRunning(ctx context.Context) error {
	hints := [][2]string{{"ip netns", "lists the namespaces"}}
	node := d.Net.Nodes()[0]
	if node.PID() != 0 && node.Crashed() == nil {
		page, err := d.servePage(ctx, node)
		if err != nil {
			return err
		}
		hints = append(hints, [2]string{page, "the status page of " + node.Entry().Name + ", in a browser"})
	}
	if err := d.Net.Keep(); err != nil {
		return fmt.Errorf("can't leave it running: %w", err)
	}
	d.heading(len(d.Steps)+1, "It keeps running")
	hints = append(hints, d.Hints()...)
	hints = append(hints, [2]string{"make demo-clean", "removes it all"})
	width := 0
	for _, hint := range hints {
		width = max(width, len(hint[0]))
	}
	for _, hint := range hints {
		d.Line("%s  %s", PadRight(hint[0], width), d.Paint(Faint, hint[1]))
	}
	return nil
}

// clean removes what demos have left by --keep, or by being killed.
func (s *Screen) clean(ctx context.Context) error {
	swept, err := testnet.Sweep(ctx, prefix)
	if err != nil {
		return err
	}
	if len(swept) == 0 {
		s.OK("nothing to remove")
		return nil
	}
	s.OK("removed %s", strings.Join(swept, ", "))
	return nil
}
