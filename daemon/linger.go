package daemon

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"weft/internal/alone"
	"weft/internal/status"
)

// ErrTakeBack says that a weftd that lingered must start again, in the same process, and take the data
// path back.
var ErrTakeBack = errors.New("the weftd that has taken over does not replace this one")

// lingerLimit is how long a weftd waits to be ended. A DaemonSet's controller deletes the old pod within
// seconds after the new one is ready. Tests change it.
var lingerLimit = 2 * time.Minute

// lingerInterval is how often it looks whether the next weftd lives: seldom enough for a next one that
// was refused the data path to have the lock by then. Tests change it.
var lingerInterval = 2 * time.Second

// linger returns nil when ctx is done. If this process ended right away, kubelet would restart the
// container of the old pod, and its weftd would take over again. linger returns ErrTakeBack when the next
// weftd has ended, or when the DaemonSet's update is stuck.
//
// A pod that was ready stays so meanwhile, and its process does not end even then: the DaemonSet's
// controller deletes an old pod that is not ready, whether the new one is or not, and goes on with the
// next node. A bad update would reach all nodes.
func (d *daemon) linger(ctx context.Context) error {
	if d.Ready() == nil {
		listener, err := status.Listen(filepath.Join(d.config.RunDir, status.LingerName))
		if err != nil {
			d.log.Error("not ready while waiting", "error", err)
		} else {
			defer listener.Close() // that it is there is all that probes ask
		}
	}
	d.successor.Release()
	d.log.Info("waiting to be ended, another weftd has the data path")
	limit := time.After(lingerLimit)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-limit:
			d.log.Warn("not ended, data path taken back", "after", lingerLimit)
			return ErrTakeBack
		case <-time.After(lingerInterval):
		}
		if held, err := alone.Held(d.config.RunDir); err == nil && !held {
			d.log.Warn("the weftd that had taken over runs no more")
			return ErrTakeBack
		}
	}
}
