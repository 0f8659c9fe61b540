package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"

	"weft/daemon/handover"
	"weft/router/tun"
)

// closing is a queue that only knows whether it was closed.
type closing struct {
	tun.Queue
	closed bool
}

func (*closing) File() *os.File { return nil }

func (c *closing) Close() error {
	c.closed = true
	return nil
}

// Whose the data path is decides what becomes of it, whatever else has failed at the same time.
func TestEndOfADataPath(t *testing.T) {
	failed := errors.New("another part failed")
	unclear := fmt.Errorf("hand over: %w", handover.ErrUnclear)
	for _, tc := range []struct {
		name    string
		err     error // of the other parts
		lanes   error // why forwarding ended
		want    error
		forgets bool // the device
	}{
		{"handed over", nil, errHandedOver, nil, false},
		{"handed over while another part fails", failed, errHandedOver, nil, false},
		{"unclear", nil, unclear, handover.ErrUnclear, false},
		{"unclear while another part fails", failed, unclear, handover.ErrUnclear, false},
		{"replaced while another part fails", failed, errReplaced, os.ErrInvalid, true}, // of the queue, which is none
		{"a lane fails", nil, failed, failed, true},
		{"another part fails", failed, nil, failed, true},
	} {
		queue := new(closing)
		d := &daemon{log: slog.New(slog.DiscardHandler), successor: new(handover.Request), stopLanes: func() error { return tc.lanes }}
		d.path.Store(&path{queues: []tun.Queue{queue}})
		if err := d.end(tc.err); !errors.Is(err, tc.want) || queue.closed != tc.forgets {
			t.Errorf("%s: end = %v, the queue is closed: %t; want %v, %t", tc.name, err, queue.closed, tc.want, tc.forgets)
		}
	}
}

// TestSuccessorArguments: they don't grow with each hand-over.
func TestSuccessorArguments(t *testing.T) {
	want := []string{"--config", "weft.yaml", "--takeover"}
	first := successorArguments(want[:2:2])
	for _, got := range [][]string{first, successorArguments(first)} {
		if !slices.Equal(got, want) {
			t.Errorf("arguments %q, want %q", got, want)
		}
	}
}
