package daemon

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/echo"
	"weft/internal/warning"
)

// serveEcho answers other nodes' `weft connectivity test`, unless that is switched off. Pods don't need
// it, so it tries again while another program has the port.
func (d *daemon) serveEcho(ctx context.Context, group *errgroup.Group) {
	port := d.config.Echo.Port
	if port == 0 {
		return
	}
	group.Go(func() error {
		for {
			server, err := echo.Listen(ctx, d.config.TUN.Name, port)
			if err == nil {
				d.warn("echo", nil)
				return server.Serve(ctx)
			}
			d.warn("echo", &warning.Warning{Code: "not_served", Text: fmt.Sprintf("weftd does not answer other nodes' connectivity tests: %v; free the port or change echo.port on all nodes (0 switches it off)", err)})
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(retryInterval):
			}
		}
	})
}
