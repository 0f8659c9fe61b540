package control

import (
	"sync"
	"time"
)

// Contact is when a control source has answered. The zero Contact is of one that was never asked.
// It may be used from several goroutines.
type Contact struct {
	mu   sync.Mutex
	made time.Time
	lost bool
}

// Made says that the source has just answered.
func (c *Contact) Made() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made, c.lost = time.Now(), false
}

// Lost says that the source didn't answer, or refused to.
func (c *Contact) Lost() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lost = true
}

// LastContact returns when the source last answered, zero if it never did, and whether it has
// answered since it was last Lost.
func (c *Contact) LastContact() (at time.Time, reachable bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.made, !c.made.IsZero() && !c.lost
}
