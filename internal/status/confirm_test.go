package status_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/status"
)

func TestConfirmationArrivesOrFails(t *testing.T) {
	want := status.Confirmation{Withdrawn: []string{"node2", "node3"}, Peers: 1}
	waiting := true
	path := serve(t, status.Handler(status.Daemon{Confirm: func(context.Context) (status.Confirmation, error) {
		if !waiting {
			return status.Confirmation{}, errors.New("no list waits")
		}
		waiting = false
		return want, nil
	}}))
	got, err := status.ConfirmList(t.Context(), path)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
	if _, err := status.ConfirmList(t.Context(), path); err == nil || err.Error() != "no list waits" {
		t.Errorf("got %v", err)
	}
}
