package control

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestContact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c Contact
		expect := func(what string, age time.Duration, want bool) {
			t.Helper()
			at, reachable := c.LastContact()
			if reachable != want || time.Since(at) != age && age >= 0 || at.IsZero() != (age < 0) {
				t.Errorf("%s: reachable %t, last at %s", what, reachable, at)
			}
		}
		expect("never asked", -1, false)
		c.Lost()
		expect("it does not answer", -1, false)
		c.Made()
		time.Sleep(time.Minute)
		expect("it has answered a minute ago", time.Minute, true)
		c.Lost()
		expect("it does not answer any more", time.Minute, false)
		c.Made()
		expect("it answers again", 0, true)
	})
}
