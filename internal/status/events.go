package status

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"weft/internal/events"
)

// Events returns what has happened at a time or later, and behind a sequence number.
type Events func(since time.Time, after uint64) events.Page

func (f Events) serve(w http.ResponseWriter, r *http.Request) {
	var since time.Time
	var after uint64
	var err error
	query := r.URL.Query()
	if text := query.Get("since"); text != "" {
		if since, err = time.Parse(time.RFC3339Nano, text); err != nil {
			http.Error(w, fmt.Sprintf("since=%q is not a time like 2026-01-02T03:04:05Z", text), http.StatusBadRequest)
			return
		}
	}
	if text := query.Get("after"); text != "" {
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			http.Error(w, fmt.Sprintf("after=%q is not a sequence number", text), http.StatusBadRequest)
			return
		}
	}
	reply(w, f(since, after))
}

// FetchEvents asks the daemon behind the socket at path what has happened at a time or later, and
// behind a sequence number.
func FetchEvents(ctx context.Context, path string, since time.Time, after uint64) (events.Page, error) {
	query := url.Values{"since": {since.UTC().Format(time.RFC3339Nano)}, "after": {strconv.FormatUint(after, 10)}}
	return ask[events.Page](ctx, answerLimit, path, http.MethodGet, "/v1/events?"+query.Encode(), nil)
}
