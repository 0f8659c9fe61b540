package events

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// LevelQuiet is for what happens too often for the log, such as new data keys each few minutes: a
// record of this level becomes an event, and the log has it only at this level or a lower one.
const LevelQuiet = slog.LevelInfo - 1

// subjects are the attributes by which an event is distinguished from others of its code.
// Attributes that pods or non-peer sources can choose freely are not among them.
var subjects = []string{"peer", "code", "reason", "counter", "action", "container", "plugin", "step"}

// handler makes events of records.
type handler struct {
	slog.Handler
	journal *Journal
}

// Handler returns a handler of log records that next handles too. A record's message becomes
// the event's code: "peer unreachable" becomes peer_unreachable. One of the attributes becomes
// its subject, "remedy" its remedy, and the rest its text.
func (j *Journal) Handler(next slog.Handler) slog.Handler { return handler{next, j} }

func (h handler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= LevelQuiet || h.Handler.Enabled(ctx, level)
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= LevelQuiet {
		h.journal.Add(event(r))
	}
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler. What all records of a logger have is left out of events.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs), h.journal}
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(name string) slog.Handler {
	return handler{h.Handler.WithGroup(name), h.journal}
}

// event is what a record says.
func event(r slog.Record) Event {
	e := Event{Time: r.Time, Level: max(r.Level, slog.LevelInfo).String(), Code: strings.ToLower(strings.ReplaceAll(r.Message, " ", "_"))}
	values := map[string]string{}
	r.Attrs(func(a slog.Attr) bool {
		values[a.Key] = fmt.Sprint(a.Value.Resolve().Any())
		return true
	})
	subject := ""
	for _, key := range subjects {
		if value, ok := values[key]; ok {
			subject, e.Subject = key, value
			break
		}
	}
	e.Remedy = values["remedy"]
	var text []string
	for _, key := range []string{"error", "warning"} { // sentences come first
		if value, ok := values[key]; ok {
			text = append(text, value)
		}
	}
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "error", "warning", "remedy", subject:
		default:
			text = append(text, a.Key+"="+values[a.Key])
		}
		return true
	})
	e.Text = strings.Join(text, " ")
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	return e
}
