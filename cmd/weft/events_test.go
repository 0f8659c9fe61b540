package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft/internal/events"
	"weft/internal/status"
	"weft/internal/testnet"
)

func TestEventsAreLines(t *testing.T) {
	local := func(at time.Time) string { return at.Local().Format(time.DateTime) }
	var got strings.Builder
	err := printEvents(&got, []events.Event{
		{Time: now, First: now, Count: 1, Code: "peer_unreachable", Subject: "node2", Text: "node2 does not\nanswer\x1b"},
		{Time: now, First: now.Add(-time.Hour), Count: 12, Code: "data_keys_agreed", Subject: "node3\n"},
		{Time: now, First: now, Count: 1, Code: "node_list_rejected", Text: "line 4 is wrong", Remedy: "correct it"},
	})
	want := `
TIME                 EVENT               SUBJECT  DETAILS
` + local(now) + `  peer unreachable    node2    node2 does not answer` + "\ufffd" + `
` + local(now) + `  data keys agreed    node3    (12 times since ` + local(now.Add(-time.Hour)) + `)
` + local(now) + `  node list rejected  -        line 4 is wrong; correct it
`
	if diff := cmp.Diff(strings.TrimPrefix(want, "\n"), got.String()); err != nil || diff != "" {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
	if err := printEvents(fullDisk(t), nil); err == nil {
		t.Error("a full disk was not noticed")
	}
}

func TestEventsMisuse(t *testing.T) {
	code, _, stderr := asWeft(t, "events", "--since=-1h")
	if want := "weft: --since -1h0m0s is negative; write how far to look back, as --since 1h"; code != 2 || !strings.HasPrefix(stderr, want) {
		t.Errorf("exit status %d, %q; want 2, %q", code, stderr, want)
	}
}

// output is written to by one goroutine and read by another.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Events are followed from one weftd to the next one, whose sequence begins anew.
func TestEventsAreFollowedThroughARestart(t *testing.T) {
	var mu sync.Mutex
	journal := events.New(now)
	add := func(subject string) { journal.Add(events.Event{Time: now, Code: "peer_added", Subject: subject}) }
	socket := serveWeftd(t, status.Daemon{Events: func(since time.Time, after uint64) events.Page {
		mu.Lock()
		defer mu.Unlock()
		return journal.Since(since, after)
	}})
	add("first")
	page, err := status.FetchEvents(t.Context(), socket, time.Time{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var out output
	done := make(chan error, 1)
	go func() { done <- followEvents(ctx, &out, "json", socket, page) }()
	wait := func(subject string) {
		t.Helper()
		if err := testnet.Wait(t.Context(), "the event of "+subject, func(context.Context) error {
			if n := strings.Count(out.String(), `"subject":"`+subject+`"`); n != 1 {
				return fmt.Errorf("it is there %d times:\n%s", n, out.String())
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	wait("first")
	mu.Lock()
	add("second")
	mu.Unlock()
	wait("second")
	mu.Lock()
	journal = events.New(now.Add(time.Hour))
	add("third")
	mu.Unlock()
	wait("third")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
