package daemon

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"weft/control"
	"weft/encap"
	"weft/internal/alone"
	"weft/internal/config"
	"weft/internal/hostnet"
)

// Check returns all that keeps a weftd with this configuration from starting here, as far
// as that can be seen without changing anything and without a control source that is
// elsewhere. Beside a running weftd it leaves out what that one holds.
func Check(ctx context.Context, c config.Config) error {
	log := slog.New(slog.DiscardHandler)
	errs := []error{hostnet.Check()}
	if running, err := alone.Held(c.RunDir); err != nil {
		errs = append(errs, err)
	} else if !running {
		errs = append(errs, newDaemon(c, log, nil).checkOverlap(), named(encap.CheckFree(ctx, c.Listen), c.Listen))
	}
	options, _, err := identify(c)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	source, err := newSource(c, options.Key, log)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	if source.registry == nil { // the list is here, and must be right
		state, err := source.Load(ctx)
		if err == nil {
			_, err = (&control.Guard{Options: options}).Next(state, time.Now())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
