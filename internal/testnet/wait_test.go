package testnet

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestWaitReportsItsLastFailure(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	refused := errors.New("connection refused")

	err := Wait(ctx, "node1 to be ready", func(context.Context) error { return refused })

	if err == nil || !strings.Contains(err.Error(), "node1 to be ready") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("got %q", err)
	}
	if !errors.Is(err, refused) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%q wraps neither the failure nor the reason to give up", err)
	}
}

func TestWaitIgnoresTheTryThatWasCutShort(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	telling := errors.New("status 503: no TUN device")
	first := true

	err := Wait(ctx, "an answer", func(ctx context.Context) error {
		if first {
			first = false
			return telling
		}
		<-ctx.Done()
		return ctx.Err()
	})

	if !errors.Is(err, telling) {
		t.Errorf("got %q", err)
	}
}

func TestWaitReportsTheCause(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	crashed := errors.New("weftd ended: exit status 2")

	err := Wait(ctx, "node1 to be ready", func(context.Context) error {
		cancel(crashed)
		return errors.New("connection refused")
	})

	if !errors.Is(err, crashed) {
		t.Errorf("got %q", err)
	}
}

func TestWaitReturnsAsSoonAsTheConditionHolds(t *testing.T) {
	tries := 0
	err := Wait(t.Context(), "the third try", func(context.Context) error {
		if tries++; tries < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if err != nil || tries != 3 {
		t.Errorf("got %v after %d tries", err, tries)
	}
}
