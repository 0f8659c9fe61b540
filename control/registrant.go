package control

import "sync"

// Registrant hands what a node says of itself from Register to a Registry's Run. The zero
// Registrant is ready for use.
type Registrant struct {
	mu      sync.Mutex
	self    *Self // nil before the first Register
	changed chan struct{}
}

// Register implements Registry.
func (r *Registrant) Register(self Self) {
	r.mu.Lock()
	r.self = &self
	r.mu.Unlock()
	select {
	case r.channel() <- struct{}{}:
	default: // Run has not received the one before
	}
}

// Registered receives after Register was called, once for several calls.
func (r *Registrant) Registered() <-chan struct{} { return r.channel() }

// Self returns what Register received last; nil before that.
func (r *Registrant) Self() *Self {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.self
}

func (r *Registrant) channel() chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{}, 1)
	}
	return r.changed
}
