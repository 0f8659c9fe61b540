package control

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestEmitter: only news is emitted, and an error as long as its receiver needs it.
func TestEmitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var emitted []string
		e := NewEmitter(func(s State, err error) {
			if err != nil {
				s.Origin = err.Error()
			}
			emitted = append(emitted, s.Origin)
		}, 0, 0)
		state := func(name string, well bool) func() {
			return func() { e.State(func() State { return State{Origin: name} }, well) }
		}
		changed := func(name string) func() { return func() { e.Done(); state(name, true)() } }
		noState := func(kind, text string) func() { return func() { e.NoState(kind, errors.New(text)) } }
		lesser := func(kind, text string) func() { return func() { e.Error(kind, errors.New(text)) } }
		later := func() { time.Sleep(repeatInterval) }
		for _, step := range []struct {
			name string
			do   func()
			want string // empty: nothing is emitted
		}{
			{"nothing has changed", state("a", true), ""},
			{"the first State", changed("a"), "a"},
			{"a change that makes the same State", changed("a"), ""},
			{"another State", changed("b"), "b"},
			{"a State that is not due", state("c", true), ""},
			{"after a reload", e.Reload, ""},
			{"the same State is emitted", state("b", true), "b"},

			{"there is no State", noState("link", "refused"), "refused"},
			{"for the same reason", noState("link", "refused"), ""},
			{"for another reason of the same kind", noState("link", "reset"), ""},
			{"for a reason of another kind", noState("entry", "no CIDR"), "no CIDR"},
			{"30 s pass", later, ""},
			{"the same reasons go on", noState("link", "refused"), ""},
			{"the other reason goes on", noState("link", "reset"), "reset"},
			{"there is a State, the same", state("b", false), "b"},
			{"no State again, at once", noState("link", "reset"), "reset"},
			{"after a reload", e.Reload, ""},
			{"the reason is emitted again", noState("link", "reset"), "reset"},
			{"the end", state("b", true), "b"},

			{"something else is wrong", lesser("write", "forbidden"), "forbidden"},
			{"the State is the same", state("b", false), ""},
			{"30 s pass", later, ""},
			{"its receiver knows it still", lesser("write", "forbidden"), ""},
			{"a change while it goes on", e.Done, ""},
			{"the State hides it", state("c", false), "c"},
			{"it is emitted again", lesser("write", "forbidden"), "forbidden"},
			{"another change", e.Done, ""},
			{"the State hides it again", state("d", false), "d"},
			{"it is not emitted so soon", lesser("write", "forbidden"), ""},
			{"its end is news, though it was hidden", state("d", true), "d"},
			{"once", state("d", true), ""},
			{"the next one is news at once", lesser("write", "forbidden"), "forbidden"},
		} {
			emitted = nil
			step.do()
			var want []string
			if step.want != "" {
				want = []string{step.want}
			}
			if !slices.Equal(emitted, want) {
				t.Fatalf("%s: emitted %q, want %q", step.name, emitted, want)
			}
		}
	})
}
