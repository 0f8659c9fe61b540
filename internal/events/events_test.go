package events_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weft/internal/events"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(minutes int) time.Time { return start.Add(time.Duration(minutes) * time.Minute) }

func shown(j *events.Journal) (all []string) {
	for _, e := range j.Since(time.Time{}, 0).Events {
		all = append(all, fmt.Sprintf("%s %s %s %d since %s", e.Time.Format("04:05"), e.Code, e.Subject, e.Count, e.First.Format("04:05")))
	}
	return all
}

func TestRepeatedEventsAreJoined(t *testing.T) {
	j := events.New(start)
	for _, e := range []events.Event{
		{Time: at(0), Code: "peer_unreachable", Subject: "node2"},
		{Time: at(1), Code: "peer_unreachable", Subject: "node3"},
		{Time: at(2), Code: "peer_reachable_again", Subject: "node2"},
		{Time: at(3), Code: "peer_unreachable", Subject: "node2"},
		{Time: at(12), Code: "peer_unreachable", Subject: "node2"},
		{Time: at(40), Code: "peer_unreachable", Subject: "node2"},
	} {
		j.Add(e)
	}
	want := []string{
		"05:05 peer_unreachable node3 1 since 05:05",
		"06:05 peer_reachable_again node2 1 since 06:05",
		"16:05 peer_unreachable node2 3 since 04:05",
		"44:05 peer_unreachable node2 1 since 44:05",
	}
	if diff := cmp.Diff(want, shown(j)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What one kind of event floods the journal with costs this kind only.
func TestNoCodePushesOutOthers(t *testing.T) {
	j := events.New(start)
	for i := range 10 {
		j.Add(events.Event{Time: at(0), Code: "node_list_applied", Subject: fmt.Sprint(i)})
	}
	for i := range 3 * events.Capacity {
		j.Add(events.Event{Time: at(1), Code: "handshake_refused", Subject: fmt.Sprint(i)})
	}
	lists, all := 0, j.Since(time.Time{}, 0).Events
	for _, e := range all {
		if e.Code == "node_list_applied" {
			lists++
		}
	}
	if lists != 10 || len(all) != events.Capacity {
		t.Errorf("%d of 10 events are left, of %d; want all, of %d", lists, len(all), events.Capacity)
	}
	if last := all[len(all)-1].Subject; last != fmt.Sprint(3*events.Capacity-1) {
		t.Errorf("the newest event is of %s", last)
	}
}

func TestSinceSelectsByTimeAndSequence(t *testing.T) {
	j := events.New(start)
	for i := range 4 {
		j.Add(events.Event{Time: at(i), Code: "c", Subject: fmt.Sprint(i)})
	}
	for _, tt := range []struct {
		since time.Time
		after uint64
		want  int
	}{{time.Time{}, 0, 4}, {at(2), 0, 2}, {time.Time{}, 3, 1}, {at(2), 3, 1}, {at(4), 0, 0}} {
		page := j.Since(tt.since, tt.after)
		if len(page.Events) != tt.want || page.Events == nil || page.Began != start {
			t.Errorf("since %v, after %d: %+v; want %d events", tt.since, tt.after, page, tt.want)
		}
	}
}

func TestRecordsBecomeEvents(t *testing.T) {
	j := events.New(start)
	var log strings.Builder
	logger := slog.New(j.Handler(slog.NewTextHandler(&log, nil))).With("node", "node1")
	logger.Warn("peer unreachable", "peer", "node2", "endpoint", "192.0.2.2:9338", "error", errors.New("it does not answer; look there"))
	logger.Log(t.Context(), events.LevelQuiet, "data keys agreed", "peer", "node2")
	logger.Debug("handshake failed", "peer", "node2")
	logger.Error("node list rejected", "error", strings.Repeat("ä", 5000), "remedy", "correct it")
	want := []events.Event{
		{Level: "WARN", Code: "peer_unreachable", Subject: "node2", Text: "it does not answer; look there endpoint=192.0.2.2:9338"},
		{Level: "INFO", Code: "data_keys_agreed", Subject: "node2"},
		{Level: "ERROR", Code: "node_list_rejected", Text: strings.Repeat("ä", 498) + "…", Remedy: "correct it"},
	}
	got := j.Since(time.Time{}, 0).Events
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(events.Event{}, "Sequence", "Time", "First", "Count")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if text := log.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, `msg="peer unreachable" node=node1 peer=node2`) || strings.Contains(text, "agreed") {
		t.Errorf("the log has\n%s", text)
	}
}
