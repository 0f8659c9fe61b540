package control

import (
	"reflect"
	"time"
)

// repeatInterval is how often errors of one kind are emitted at most.
const repeatInterval = 30 * time.Second

// Emitter calls a Registry's emit with news only: with a State that differs from the last one
// or comes after an error, and with an error that its receiver does not know. Errors of one
// kind have one cause or one remedy; another one of the kind is news after 30 seconds.
type Emitter struct {
	Debounce

	emit func(State, error)

	// due says that a State must be emitted as soon as there can be one, if it differs from
	// last; again, that it must be even if it doesn't.
	due, again bool
	last       State

	reported map[string]report // by kind; those that are not over
}

// report is an error that was emitted.
type report struct {
	text    string // empty after a State
	at      time.Time
	noState bool // it said why there is no State
}

// NewEmitter returns an Emitter that calls emit, and debounces States.
func NewEmitter(emit func(State, error), interval, longest time.Duration) *Emitter {
	return &Emitter{Debounce: Debounce{Interval: interval, Longest: longest}, emit: emit, reported: make(map[string]report)}
}

// Done says that the next State is due, with all changes until now.
func (e *Emitter) Done() {
	e.Debounce.Done()
	e.due = true
}

// Reload makes everything news.
func (e *Emitter) Reload() {
	e.due, e.again = true, true
	clear(e.reported)
}

// NoState emits why there is no State. The error ends with the next State.
func (e *Emitter) NoState(kind string, err error) {
	e.due, e.again = true, true
	e.report(kind, err, true)
}

// Error emits what is wrong although there may be States. The error ends with a State that is
// called well; other States hide it from the receiver, and it is news again after 30 seconds.
func (e *Emitter) Error(kind string, err error) { e.report(kind, err, false) }

func (e *Emitter) report(kind string, err error, noState bool) {
	now, text := time.Now(), err.Error()
	if before, known := e.reported[kind]; known && (text == before.text || now.Sub(before.at) < repeatInterval) {
		return
	}
	e.reported[kind] = report{text, now, noState}
	e.emit(State{}, err)
}

// State emits the State that makeState returns if one is due. Well says that all errors are over.
func (e *Emitter) State(makeState func() State, well bool) {
	if well && len(e.reported) > 0 {
		e.due, e.again = true, true
		clear(e.reported)
	}
	if !e.due {
		return
	}
	e.paced(func() {
		state := makeState()
		if !e.again && reflect.DeepEqual(state, e.last) {
			e.due = false
			return
		}
		e.emit(state, nil)
		e.due, e.again, e.last = false, false, state
		for kind, r := range e.reported {
			if r.noState {
				delete(e.reported, kind)
				continue
			}
			r.text = ""
			e.reported[kind] = r
		}
	})
}
