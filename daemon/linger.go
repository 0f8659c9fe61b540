package daemon

import (
	"context"
	"time"

	"weft/internal/alone"
)

// lingerLimit is how long a weftd waits to be ended. A DaemonSet's controller deletes the old pod within
// seconds after the new one is ready. Tests change it.
var lingerLimit = 2 * time.Minute

// lingerInterval is how often it looks whether the next weftd lives: seldom enough for a next one that
// was refused the data path to have the lock by then. Tests change it.
var lingerInterval = 2 * time.Second

// linger returns when ctx is done. In a pod of a DaemonSet, kubelet would start a weftd that ends at
// once again, and that one would take over in turn. Where nobody ends this one, that must happen: it
// also returns when the next weftd has ended, and when the update of the DaemonSet goes on no further.
func (d *daemon) linger(ctx context.Context) {
	d.successor.Release()
	d.log.Info("waiting to be ended, another weftd has the data path")
	limit := time.After(lingerLimit)
	for {
		select {
		case <-ctx.Done():
			return
		case <-limit:
			d.log.Warn("not ended though another weftd has the data path, so the next start takes it back", "after", lingerLimit)
			return
		case <-time.After(lingerInterval):
		}
		if held, err := alone.Held(d.config.RunDir); err == nil && !held {
			d.log.Warn("the weftd that had taken over runs no more")
			return
		}
	}
}
