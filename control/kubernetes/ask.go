package kubernetes

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/control"
)

const (
	// firstPause is how long the first wait for an API server takes that gives no answer. It
	// doubles until it is control.ReconnectPause.
	firstPause = 200 * time.Millisecond

	// mostFailures is how often one question is asked again that the API server fails to
	// answer. Then the Reflector asks otherwise.
	mostFailures = 10

	// rightsGrace is how long an API server may refuse everything before that is taken for its
	// last word: one that has just started refuses until it has read who has which rights.
	rightsGrace = 10 * time.Second
)

// ask asks the API server for a list or for a watch until it gives one, or an answer that is
// for the Reflector to act upon. A watch that goes on where it was costs the API server less
// than a new list, so it is worth waiting for.
func (r *run) ask(ctx context.Context, question func(nodeAPI) error) error {
	pause := control.Backoff{Shortest: firstPause}
	for failures := 1; ; failures++ {
		pause.Longest = control.ReconnectPause(r.nodes.count())
		err := question(r.currentAPI())
		r.report(ctx, err)
		if err == nil || ctx.Err() != nil || !passes(err) || apierrors.IsInternalError(err) && failures >= mostFailures {
			return err
		}
		if apierrors.IsUnauthorized(err) {
			r.readCredentials()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause.Wait()):
		}
	}
}

// passes reports whether an error says nothing of the question, only of the API server, of the
// way there or of this node's rights.
func passes(err error) bool {
	switch reason := apierrors.ReasonForError(err); reason {
	case meta.StatusReasonUnknown:
		return !errors.As(err, new(apierrors.APIStatus)) // not the API server's
	case meta.StatusReasonTimeout:
		return !apierrors.HasStatusCause(err, meta.CauseTypeResourceVersionTooLarge)
	default:
		return reason == meta.StatusReasonUnauthorized || reason == meta.StatusReasonForbidden || reason == meta.StatusReasonTooManyRequests ||
			reason == meta.StatusReasonServiceUnavailable || reason == meta.StatusReasonServerTimeout || reason == meta.StatusReasonInternalError
	}
}

// report takes in how a list or a watch has begun.
func (r *run) report(ctx context.Context, err error) {
	// Neither is anything wrong if the version that was asked for is too old, nor if the
	// API server can't stream a list: the Reflector then asks otherwise.
	if ctx.Err() != nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || apierrors.IsInvalid(err) {
		return
	}
	if r.link.set(err, time.Now()) {
		signal(r.wake)
	}
	switch {
	case err == nil:
		r.Made()
	case r.link.get() != nil:
		r.Lost()
	}
}
