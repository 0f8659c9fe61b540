package handshake

import "testing"

// Dials that packets wait for go first, those of peers that did not answer last and on half of the
// places only, and no more go at once than the limit allows.
func TestUrgentDialsGoFirst(t *testing.T) {
	turns := turns{limit: new(limit)}
	dials := map[*dial]urgency{}
	add := func(u urgency) *dial {
		d := new(dial)
		dials[d] = u
		turns.add(d, u)
		return d
	}
	for range beginWith {
		add(doubtful)
	}
	add(ordinary)
	promoted, gone := add(ordinary), add(urgent)
	add(urgent)
	turns.add(promoted, urgent)
	turns.remove(gone)
	next := func(want urgency) *dial {
		t.Helper()
		d := turns.next()
		if d == nil || d.urgency != want {
			t.Fatalf("next is %+v, want one of urgency %d", d, want)
		}
		return d
	}
	next(urgent)
	if d := next(urgent); d != promoted {
		t.Error("a dial that a packet waits for by now is not urgent")
	}
	next(ordinary)
	var last *dial
	for range beginWith / 2 {
		last = next(doubtful)
	}
	if d := turns.next(); d != nil {
		t.Errorf("%+v has a place", d)
	}
	turns.done(last, false)
	next(doubtful)
	for range beginWith/2 - 3 {
		add(urgent)
		next(urgent)
	}
	add(urgent)
	if d := turns.next(); d != nil {
		t.Errorf("%+v goes beyond the limit", d)
	}
}
