package testnet

import (
	"context"
	"fmt"
	"time"
)

// WaitLimit bounds a Wait whose context has no deadline, and the start and the stop of a
// program. It exists only so that a hang ends: on a slow and busy machine everything takes
// long, and a test that fails because of that says nothing about weft.
const WaitLimit = 2 * time.Minute

const (
	firstPause   = 5 * time.Millisecond
	longestPause = 500 * time.Millisecond
)

// Wait calls cond, ever more slowly, until it returns nil or ctx ends; without a
// deadline in ctx, for WaitLimit. The error names what was waited for, why the wait
// ended, and the last failure of cond, which errors.Is finds as well.
func Wait(ctx context.Context, what string, cond func(context.Context) error) error {
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, WaitLimit)
		defer cancel()
	}
	started := time.Now()
	var last error
	for pause := firstPause; ; pause = min(pause*2, longestPause) {
		err := cond(ctx)
		if err == nil {
			return nil
		}
		// A try that was cut short by the end of ctx says less than the one before it.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: gave up after %v (%w); the last failure: %w",
				what, time.Since(started).Round(time.Millisecond), context.Cause(ctx), last)
		case <-time.After(pause):
		}
	}
}
