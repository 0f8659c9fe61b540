// Package events keeps what has changed on a node in the last hours: peers that came, went or
// did not answer, lists of nodes, keys, repairs, warnings, drops. `weft events` shows it.
//
// The log and the journal have one source: Handler makes an event of each record that weftd logs.
// The journal is in memory only, and bounded: whatever peers and pods do, it has Capacity events
// at most, and no kind of event pushes out another one.
package events

import (
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// Capacity is how many events a journal keeps.
	Capacity = 2048

	// joinWindow is for how long after an event the next one of its code and subject counts
	// as the same one. Data keys are replaced more often than that.
	joinWindow = 10 * time.Minute

	// mostText bounds an event's text, in bytes: an error may list every line of a file.
	mostText = 1000
)

// Event is something that has changed, or that has happened several times in a row.
type Event struct {
	// Sequence grows with each event and each repetition of one.
	Sequence uint64 `json:"sequence"`

	// Time is when it happened last, and First when first. They are equal unless Count is
	// more than 1.
	Time  time.Time `json:"time"`
	First time.Time `json:"first"`
	Count int       `json:"count"`

	Level string `json:"level"` // INFO, WARN or ERROR

	// Code is the kind of event: "peer_unreachable". Subject is the peer, drop reason or
	// warning that it is about, if any.
	Code    string `json:"code"`
	Subject string `json:"subject,omitempty"`

	// Text says more. Remedy is what to do, unless Text says it behind a semicolon.
	Text   string `json:"text,omitempty"`
	Remedy string `json:"remedy,omitempty"`
}

// Journal is the events of one weftd. Its methods may be called from several goroutines.
type Journal struct {
	began time.Time

	mu       sync.Mutex // guards what follows
	sequence uint64
	events   []Event        // by Sequence
	held     map[string]int // how many events have a code
}

// New returns an empty journal that begins at a time.
func New(began time.Time) *Journal { return &Journal{began: began, held: map[string]int{}} }

// Add adds an event, or joins it with the last one of its code and subject.
func (j *Journal) Add(e Event) {
	e.Text, e.Remedy, e.Subject = bounded(e.Text), bounded(e.Remedy), bounded(e.Subject)
	e.First, e.Count = e.Time, 1
	j.mu.Lock()
	defer j.mu.Unlock()
	same := func(o Event) bool { return o.Code == e.Code && o.Subject == e.Subject }
	if i := lastIndex(j.events, same); i >= 0 && e.Time.Sub(j.events[i].Time) < joinWindow {
		e.First, e.Count = j.events[i].First, j.events[i].Count+1
		j.remove(i)
	}
	j.sequence++
	e.Sequence = j.sequence
	if len(j.events) == Capacity {
		j.evict()
	}
	j.events = append(j.events, e)
	j.held[e.Code]++
}

// evict makes room: the oldest event goes of the code that has the most.
func (j *Journal) evict() {
	most := ""
	for code, n := range j.held {
		if n > j.held[most] || n == j.held[most] && code < most {
			most = code
		}
	}
	j.remove(slices.IndexFunc(j.events, func(e Event) bool { return e.Code == most }))
}

func (j *Journal) remove(i int) {
	code := j.events[i].Code
	if j.held[code]--; j.held[code] == 0 {
		delete(j.held, code)
	}
	j.events = slices.Delete(j.events, i, i+1)
}

func lastIndex(all []Event, is func(Event) bool) int {
	for i, e := range slices.Backward(all) {
		if is(e) {
			return i
		}
	}
	return -1
}

// bounded cuts a text to mostText bytes.
func bounded(text string) string {
	if len(text) <= mostText {
		return strings.Clone(text)
	}
	const ellipsis = "…"
	return strings.ToValidUTF8(text[:mostText-len(ellipsis)], "") + ellipsis
}

// Page is what a journal says.
type Page struct {
	// Began distinguishes one weftd's events from the next one's: each begins anew.
	Began time.Time `json:"began"`

	Events []Event `json:"events"` // by time, the newest last
}

// Since returns the events that happened at a time or later, and behind a Sequence.
func (j *Journal) Since(at time.Time, after uint64) Page {
	j.mu.Lock()
	defer j.mu.Unlock()
	page := Page{Began: j.began, Events: []Event{}}
	for _, e := range j.events {
		if e.Sequence > after && !e.Time.Before(at) {
			page.Events = append(page.Events, e)
		}
	}
	return page
}
